# The sources and definitions of QLUTATTN, for a variant of the CPU backend; included by ggml-cpu/CMakeLists.txt.

if (GGML_QLUTATTN)
    if (GGML_TMAC)
        target_compile_definitions(${GGML_CPU_NAME} PRIVATE GGML_USE_TMAC)
    endif()

    file(GLOB GGML_QLUTATTN_SOURCES CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/ggml-cpu/qlutattn/*.cpp")
    list(APPEND GGML_CPU_SOURCES ${GGML_QLUTATTN_SOURCES})

    # packing gives the same bytes on every machine: no fused multiply-adds
    if (NOT MSVC)
        set_source_files_properties(${GGML_QLUTATTN_SOURCES} PROPERTIES COMPILE_OPTIONS "-ffp-contract=off;-funroll-loops")
    endif()
    # gcc's forward substitution of single-use values keeps all products of a chunk alive at once, and spills them
    if (CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        set_source_files_properties(${CMAKE_CURRENT_SOURCE_DIR}/ggml-cpu/qlutattn/tbl-simd.cpp PROPERTIES COMPILE_OPTIONS "-ffp-contract=off;-funroll-loops;-fno-tree-ter")
    endif()
endif()
