#pragma once

// The online softmax of FlashAttention, a KV block at a time.

#include "attend.h"

// The n scores of row r become weights exp(score - M), with the state and the sums of the row rescaled to its new M. Scores come scaled, within
// the tanh of a softcap; mask is that of the first one, or NULL for 0. With a qvec, the weights are quantized into it instead.
void qlutattn_online_softmax(qlutattn_query_block & block, int r, const ggml_fp16_t * mask, int n, int qmax, qlutattn_qvec * qvec);
