# The options of QLUTATTN; included by ggml/CMakeLists.txt.

option(GGML_QLUTATTN       "ggml: packed KV caches with lookup-table attention"                         ON)
option(GGML_TMAC           "ggml: QLUTATTN: compile the lookup-table (T-MAC style) kernels, and use them" ON)
option(GGML_GRAPH_PROFILER "ggml: compile the graph profiler of the CPU backend in (GGML_PROFILE=FILE)"  OFF)
option(LLAMA_TORCH         "llama: align_attn: compare with libtorch's scaled_dot_product_attention"     OFF)

if (GGML_QLUTATTN)
    add_compile_definitions(GGML_USE_QLUTATTN)
endif()
