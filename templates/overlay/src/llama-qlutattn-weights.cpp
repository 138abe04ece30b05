#include "llama-qlutattn-weights.h"

#include "ggml-qlutattn.h"
#include "llama-impl.h"
#include "llama.h"

#include <stdexcept>
#include <string>

void llama_qlutattn_refuse_weight(const ggml_tensor * tensor) {
    if (ggml_is_qlutattn(tensor->type)) {
        throw std::runtime_error(format("tensor '%s' has the type %s, which only KV caches can have: convert the file again, to f16 for instance",
                                        tensor->name, ggml_type_name(tensor->type)));
    }
}

static void refuse(ggml_type type, const std::string & what) {
    if (ggml_is_qlutattn(type)) {
        throw std::runtime_error(
            format("%s cannot be %s, which only KV caches can be: choose another type, q4_0 for instance", what.c_str(), ggml_type_name(type)));
    }
}

void llama_qlutattn_refuse_quantize(const llama_model_quantize_params & params) {
    refuse(params.output_tensor_type, "the output tensor");
    refuse(params.token_embedding_type, "the token embeddings");
    for (const auto * override = params.tt_overrides; override && override->pattern; override++) {
        refuse(override->type, format("tensors named '%s'", override->pattern));
    }
}
