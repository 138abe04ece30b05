#pragma once

#include "machine.h"
#include "row.h"

#include <map>

// The same random keys and values of one length, in each requested type.
class caches {
  public:
    caches(machine & m, const geometry & shape, int64_t n_kv);

    // Stock types: [head_dim, n_kv, n_head_kv], perhaps a permuted view. Packed types: [TILE, n_kv, n_columns], TILE is GGML_QLUTATTN_TILE.
    ggml_tensor * keys(ggml_type type) { return get(type, false); }

    ggml_tensor * values(ggml_type type) { return get(type, true); }

    // a new tensor of the shape of keys() and values()
    ggml_tensor * new_tensor(ggml_context * ctx, ggml_type type, bool is_value) const;

    // The copy, in ctx, of the f16 keys or values to such a tensor.
    ggml_tensor * conversion(ggml_context * ctx, ggml_tensor * to, bool is_value);

    // f16 keys or values as a model makes them, and as packing takes them: [n_columns*TILE, n_kv]
    ggml_tensor * source(bool is_value);

    const geometry shape;
    const int64_t  n_kv;

  private:
    struct entry {
        ggml_context_ptr        ctx;
        ggml_backend_buffer_ptr buffer;
        ggml_tensor *           tensor = nullptr;
    };

    ggml_tensor * get(ggml_type type, bool is_value);
    void          allocate(entry & e) const;
    void          fill(ggml_tensor * t, uint64_t seed) const;

    machine &                                   m;
    std::map<std::pair<ggml_type, bool>, entry> entries;
    entry                                       sources[2];
};

// random values of about unit variance, the same on every machine
std::vector<float> random_values(uint64_t seed, size_t n);
