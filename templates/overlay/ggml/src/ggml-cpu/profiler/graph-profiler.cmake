# The sources and the definition of the graph profiler, for a variant of the CPU backend; included by ggml-cpu/CMakeLists.txt.

if (GGML_GRAPH_PROFILER)
    file(GLOB GGML_GRAPH_PROFILER_SOURCES CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/ggml-cpu/profiler/*.cpp")
    list(APPEND GGML_CPU_SOURCES ${GGML_GRAPH_PROFILER_SOURCES})

    # only the thread loop has hooks: every other object is as without the profiler
    set_property(SOURCE ggml-cpu/ggml-cpu.c APPEND PROPERTY COMPILE_DEFINITIONS GGML_GRAPH_PROFILER)
endif()
