# Finds libtorch through the Python package `torch` of the interpreter on the path, or says that it is missing.

function(align_attn_find_torch)
    if (CMAKE_CROSSCOMPILING)
        message(STATUS "align_attn: no comparison with libtorch: this is a cross build")
        return()
    endif()
    find_package(Python3 COMPONENTS Interpreter QUIET)
    if (NOT Python3_Interpreter_FOUND)
        message(STATUS "align_attn: no comparison with libtorch: there is no Python interpreter to ask for it")
        return()
    endif()
    execute_process(
        COMMAND ${Python3_EXECUTABLE} -c "import torch; print(torch.utils.cmake_prefix_path)"
        OUTPUT_VARIABLE prefix OUTPUT_STRIP_TRAILING_WHITESPACE
        RESULT_VARIABLE result ERROR_QUIET)
    if (NOT result EQUAL 0)
        message(STATUS "align_attn: no comparison with libtorch: ${Python3_EXECUTABLE} has no package 'torch' (pip install torch)")
        return()
    endif()
    list(PREPEND CMAKE_PREFIX_PATH ${prefix})
    find_package(Torch QUIET)
    if (NOT Torch_FOUND)
        message(STATUS "align_attn: no comparison with libtorch: its CMake package in ${prefix} cannot be used")
        return()
    endif()
    message(STATUS "align_attn: comparing with libtorch ${Torch_VERSION}")
    separate_arguments(flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
    set_source_files_properties(torch.cpp PROPERTIES COMPILE_DEFINITIONS ALIGN_ATTN_TORCH INCLUDE_DIRECTORIES "${TORCH_INCLUDE_DIRS}" COMPILE_OPTIONS "${flags}")
    target_link_libraries(align_attn PRIVATE ${TORCH_LIBRARIES})
endfunction()

align_attn_find_torch()
