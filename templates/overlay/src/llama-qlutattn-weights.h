#pragma once

// The packed types are for KV caches. These throw, with the reason, where one is meant for a weight.

struct ggml_tensor;
struct llama_model_quantize_params;

// a tensor of a model's or an adapter's file
void llama_qlutattn_refuse_weight(const ggml_tensor * tensor);

// what llama_model_quantize is asked for
void llama_qlutattn_refuse_quantize(const llama_model_quantize_params & params);
