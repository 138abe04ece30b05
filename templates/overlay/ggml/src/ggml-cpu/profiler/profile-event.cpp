// What a node reads, writes and computes.

#include "profile-event.h"

#include "ggml-impl.h"

#include <algorithm>
#include <cstring>

static uint64_t count_rows(const ggml_tensor * t) {
    return t->ne[1] * t->ne[2] * t->ne[3];
}

// bytes of the elements, without the gaps of a view
static uint64_t count_bytes(const ggml_tensor * t, ggml_type type, uint64_t n_rows) {
    return t->ne[0] * ggml_type_size(type) / ggml_blck_size(type) * n_rows;
}

static uint64_t count_bytes(const ggml_tensor * t) {
    return count_bytes(t, t->type, count_rows(t));
}

static bool is_attention(const ggml_tensor * t) {
    return t->op == GGML_OP_FLASH_ATTN_EXT || t->op == GGML_OP_FLASH_ATTN_EXT_MIXED;
}

// whether a source lies within one before it, as the values of MLA do in the keys
static bool is_counted(const ggml_tensor * t, int i) {
    for (int j = 0; j < i; ++j) {
        if (t->src[j] && t->src[j]->data == t->src[i]->data && count_bytes(t->src[j]) >= count_bytes(t->src[i])) {
            return true;
        }
    }
    return false;
}

// the sources from `first` on, but for one
static uint64_t count_sources(const ggml_tensor * t, int first, const ggml_tensor * without = nullptr) {
    uint64_t bytes = 0;
    for (int i = first; i < GGML_MAX_SRC; ++i) {
        if (t->src[i] && t->src[i] != without && !is_counted(t, i)) {
            bytes += count_bytes(t->src[i]);
        }
    }
    return bytes;
}

// Each element that the node needs counts once, and each that it writes; masked keys count, as the node is told of them.
static uint64_t count_node_bytes(const ggml_tensor * t) {
    const ggml_tensor * a = t->src[0];
    const ggml_tensor * b = t->src[1];
    switch (t->op) {
        case GGML_OP_GET_ROWS:   // of the table, only the rows that are asked for
            return count_bytes(t) + count_bytes(t, a->type, count_rows(t)) + count_bytes(b);
        case GGML_OP_SET_ROWS:   // the result is the whole table
            return count_bytes(a) + count_bytes(a, t->type, count_rows(a)) + count_bytes(b);
        case GGML_OP_CPY:        // the second source is where the result goes
            return count_bytes(a) + count_bytes(t);
        case GGML_OP_MUL_MAT_ID: // only the experts that are asked for
            return count_bytes(t) + count_sources(t, 1) +
                   count_bytes(a, a->type, a->ne[1] * std::min<uint64_t>(a->ne[2], t->src[2]->ne[0] * t->src[2]->ne[1]));
        default:
            return count_bytes(t) + count_sources(t, 0);
    }
}

// Products of matrices and attention, masked keys too; elementwise work is not counted.
static uint64_t count_flops(const ggml_tensor * t) {
    switch (t->op) {
        case GGML_OP_MUL_MAT:
        case GGML_OP_MUL_MAT_ID:
            return 2 * t->src[0]->ne[0] * ggml_nelements(t);
        case GGML_OP_OUT_PROD:
            return 2 * t->src[0]->ne[1] * ggml_nelements(t);
        case GGML_OP_FLASH_ATTN_EXT:
            return 2 * (t->src[1]->ne[0] + t->ne[0]) * t->src[1]->ne[1] * count_rows(t);
        case GGML_OP_FLASH_ATTN_EXT_MIXED:
            return 2 * (t->src[0]->ne[0] + t->ne[0]) * count_rows(t) * ((t->src[1] ? t->src[1]->ne[1] : 0) + (t->src[5] ? t->src[5]->ne[1] : 0));
        default:
            return 0;
    }
}

static void describe_types(profile_event & event, const ggml_tensor * t) {
    event.type_a = GGML_TYPE_COUNT;
    event.type_b = GGML_TYPE_COUNT;
    switch (t->op) {
        case GGML_OP_MUL_MAT:
        case GGML_OP_MUL_MAT_ID:
        case GGML_OP_GET_ROWS:
            event.type_a = t->src[0]->type;
            break;
        case GGML_OP_CPY:
        case GGML_OP_DUP:
        case GGML_OP_CONT:
        case GGML_OP_SET_ROWS:
            event.type_a = t->src[0]->type;
            event.type_b = t->type;
            break;
        case GGML_OP_FLASH_ATTN_EXT:
            event.type_a = t->src[1]->type;
            event.type_b = t->src[2]->type;
            break;
        case GGML_OP_FLASH_ATTN_EXT_MIXED: // the packed segment if there is one
            {
                const int k  = t->src[5] && t->src[5]->ne[1] > 0 ? 5 : 1;
                event.type_a = t->src[k] ? t->src[k]->type : GGML_TYPE_COUNT;
                event.type_b = t->src[k + 1] ? t->src[k + 1]->type : GGML_TYPE_COUNT;
            }
            break;
        default:
            break;
    }
}

static void describe_shape(uint32_t (&shape)[4], const ggml_tensor * t) {
    for (int i = 0; i < 4; ++i) {
        shape[i] = t ? (uint32_t) t->ne[i] : 0;
    }
}

void describe_node(profile_event & event, const ggml_cgraph * graph, int node, int n_fused) {
    const ggml_tensor * t = graph->nodes[node];
    event.node            = node;
    event.n_fused         = (uint8_t) n_fused;
    event.is_cut          = false;
    event.op              = (uint8_t) t->op;
    event.variant         = t->op == GGML_OP_UNARY || t->op == GGML_OP_GLU ? (uint8_t) ggml_get_op_params_i32(t, 0) : 0;
    event.fused_op        = (uint8_t) graph->nodes[node + n_fused]->op;
    event.bytes           = count_node_bytes(t);
    event.flops           = count_flops(t);
    for (int i = 1; i <= n_fused; ++i) { // what lies between two fused nodes stays in registers
        const ggml_tensor * next = graph->nodes[node + i];
        event.bytes += count_bytes(next) + count_sources(next, 0, graph->nodes[node + i - 1]) - count_bytes(graph->nodes[node + i - 1]);
        event.flops += count_flops(next);
    }
    describe_types(event, t);
    const ggml_tensor * last = graph->nodes[node + n_fused];
    describe_shape(event.ne[0], last);
    describe_shape(event.ne[1], t->src[0]);
    describe_shape(event.ne[2], t->src[1]);
    memcpy(event.name, last->name, sizeof(event.name));
}

uint32_t count_tokens(const ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; ++i) {
        const ggml_tensor * t = graph->nodes[i];
        if (t->op == GGML_OP_MUL_MAT) {
            return (uint32_t) t->ne[1];
        }
        if (is_attention(t)) {
            return (uint32_t) t->ne[2];
        }
    }
    return 0;
}
