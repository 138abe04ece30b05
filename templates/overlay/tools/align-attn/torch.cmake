# Finds libtorch through the Python package `torch` of the interpreter on the path, or says that it is missing.
# Its CMake package is not used: that one insists on the CUDA toolkit where the Python package was built for CUDA.

function(align_attn_find_torch)
    set(missing "align_attn: no comparison with libtorch:")
    if (CMAKE_CROSSCOMPILING)
        message(STATUS "${missing} this is a cross build")
        return()
    endif()
    find_package(Python3 COMPONENTS Interpreter QUIET)
    if (NOT Python3_Interpreter_FOUND)
        message(STATUS "${missing} there is no Python interpreter to ask for it")
        return()
    endif()
    execute_process(
        COMMAND ${Python3_EXECUTABLE} -c "import torch; print(torch.utils.cmake_prefix_path); print(torch.__version__); print(int(torch.compiled_with_cxx11_abi()))"
        OUTPUT_VARIABLE answer OUTPUT_STRIP_TRAILING_WHITESPACE
        RESULT_VARIABLE result ERROR_QUIET)
    if (NOT result EQUAL 0)
        message(STATUS "${missing} ${Python3_EXECUTABLE} cannot import 'torch' (pip install torch)")
        return()
    endif()
    string(REGEX REPLACE "[\r\n]+" ";" answer "${answer}")
    list(GET answer 0 prefix)
    list(GET answer 1 version)
    list(GET answer 2 cxx11_abi)

    get_filename_component(root "${prefix}/../.." ABSOLUTE)
    find_library(ALIGN_ATTN_TORCH_CPU NAMES torch_cpu PATHS "${root}/lib" NO_DEFAULT_PATH)
    find_library(ALIGN_ATTN_TORCH_C10 NAMES c10       PATHS "${root}/lib" NO_DEFAULT_PATH)
    if (NOT ALIGN_ATTN_TORCH_CPU OR NOT ALIGN_ATTN_TORCH_C10 OR NOT EXISTS "${root}/include/torch/csrc/api/include/torch/torch.h" OR NOT cxx11_abi)
        message(STATUS "${missing} torch ${version} in ${root} lacks the libraries or headers for C++")
        return()
    endif()
    message(STATUS "align_attn: comparing with libtorch ${version}")
    set_source_files_properties(torch.cpp PROPERTIES COMPILE_DEFINITIONS ALIGN_ATTN_TORCH)
    target_include_directories(align_attn SYSTEM PRIVATE "${root}/include" "${root}/include/torch/csrc/api/include")
    target_link_libraries(align_attn PRIVATE "${ALIGN_ATTN_TORCH_CPU}" "${ALIGN_ATTN_TORCH_C10}")
endfunction()

align_attn_find_torch()
