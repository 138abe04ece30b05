# The options of QLUTATTN; included by ggml/CMakeLists.txt.

option(GGML_QLUTATTN       "ggml: packed KV caches with lookup-table attention"                         ON)
option(GGML_TMAC           "ggml: QLUTATTN: compile the lookup-table (T-MAC style) kernels, and use them" ON)
option(GGML_GRAPH_PROFILER "ggml: reserved for a graph profiler, which does not exist yet"               OFF)
option(LLAMA_TORCH         "llama: align_attn: compare with libtorch's scaled_dot_product_attention"     OFF)

if (GGML_GRAPH_PROFILER)
    message(WARNING "GGML_GRAPH_PROFILER is reserved: there is no graph profiler yet, and ON changes nothing")
endif()

if (GGML_QLUTATTN)
    add_compile_definitions(GGML_USE_QLUTATTN)
endif()
