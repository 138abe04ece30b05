# What align_attn and bench_attn say of their own making (--version): compiler and flags from here, templates, patches
# and tree from a header that qlutattn build writes. Only one small file sees either.

string(TOUPPER "${CMAKE_BUILD_TYPE}" type)
string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${type}}" build_flags)
if (NOT build_flags)
    set(build_flags none)
endif()
set(build_kernel_flags "") # not known where the kernels are built several times, for several CPUs
if (TARGET ggml-cpu)
    get_target_property(options ggml-cpu COMPILE_OPTIONS)
    list(FILTER options INCLUDE REGEX "^(-m|/arch)")
    string(REPLACE ";" " " build_kernel_flags "${options}")
    if (NOT options)
        set(build_kernel_flags none)
    endif()
endif()
configure_file(provenance-build.h.in "${CMAKE_CURRENT_BINARY_DIR}/provenance-build.h" @ONLY)

# There from the start, so that ninja knows that the object depends on it.
set(header "${CMAKE_BINARY_DIR}/qlutattn-provenance.h")
if (NOT EXISTS "${header}")
    file(TOUCH "${header}")
endif()

add_library(qlutattn-provenance STATIC provenance.cpp json-text.cpp)
target_compile_features(qlutattn-provenance PRIVATE cxx_std_17)
target_include_directories(qlutattn-provenance PUBLIC . PRIVATE "${CMAKE_CURRENT_BINARY_DIR}" "${CMAKE_BINARY_DIR}")
target_link_libraries(qlutattn-provenance PUBLIC ggml)
