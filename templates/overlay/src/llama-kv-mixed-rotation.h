#pragma once

// The rotation of keys (and queries) or values before they are packed: it spreads outliers over all channels.

#include <vector>

#include <cstdint>

struct ggml_context;
struct ggml_tensor;

// the Hadamard matrix of a size that is a power of two: orthonormal, symmetric (Walsh-Hadamard), so its own inverse; [n*n]
std::vector<float> llama_kv_mixed_rotation(int64_t n);

// each n channels of x by the matrix rot, or x itself if rot is null
ggml_tensor * llama_kv_mixed_rotate(ggml_context * ctx, ggml_tensor * x, ggml_tensor * rot);
