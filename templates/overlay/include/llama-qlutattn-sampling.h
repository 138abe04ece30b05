#pragma once

// Sampling that selects instead of sorting: the same tokens as llama.cpp's own, from the row of logits itself.

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

// Whether sampler chains use llama.cpp's own code throughout, for comparison; holds for the process. What was not set is taken from
// LLAMA_ARG_SAMPLERS_STOCK in the environment: 1, on, true or enabled; otherwise false.
LLAMA_API void llama_qlutattn_set_samplers_stock(bool is_stock);
LLAMA_API bool llama_qlutattn_get_samplers_stock(void);

// Applies a chain to a row of logits as llama_sampler_apply() does to the array of all candidates, which is not written: cur_p->data,
// with room for n_vocab, gets what the chain's first filter keeps. Returns false, with nothing done, where the chain needs that array
// (its first sampler that is not off reads all candidates) or the samplers are llama.cpp's own.
LLAMA_API bool llama_qlutattn_sampler_apply_row(struct llama_sampler * chain, const float * logits, int32_t n_vocab,
                                                struct llama_token_data_array * cur_p);
// The same for the i-th output of a context; false also where a backend has sampled.
LLAMA_API bool llama_qlutattn_sampler_apply_ith(struct llama_sampler * chain, struct llama_context * ctx, int32_t i,
                                                struct llama_token_data_array * cur_p);

// Draws a token as a chain of a filter and dist does where that needs no array at all: cur_p, with room for one, gets the token alone.
// changed: room for n_vocab logits, for samplers that change the row, or NULL for memory of the thread. Returns the row that the filter
// has seen, which is logits or changed, or NULL, with nothing done, where the chain does something else: apply it then.
LLAMA_API const float * llama_qlutattn_sampler_draw_row(struct llama_sampler * chain, const float * logits, int32_t n_vocab, float * changed,
                                                        struct llama_token_data_array * cur_p);
LLAMA_API const float * llama_qlutattn_sampler_draw_ith(struct llama_sampler * chain, struct llama_context * ctx, int32_t i, float * changed,
                                                        struct llama_token_data_array * cur_p);
// Writes the candidates that a token was drawn from, with their probabilities, where somebody wants to see them: cur_p has the token, and
// room for n_vocab. row is what drawing returned, with the same logits; a token that cannot be drawn from it is left alone.
LLAMA_API void          llama_qlutattn_sampler_write_candidates(struct llama_sampler * chain, const float * row, int32_t n_vocab,
                                                                struct llama_token_data_array * cur_p);

#ifdef __cplusplus
}
#endif
