#include "llama-kv-mixed-cells.h"

#include "ggml.h"

#include <algorithm>
#include <utility>

llama_kv_mixed_layout llama_kv_mixed_layout::make(uint32_t n_cells, uint32_t n_ubatch, uint32_t n_seq_max, bool unified, uint32_t n_sink,
                                                  uint32_t n_window, const shares & shares) {
    const uint64_t n_seq  = unified ? n_seq_max : 1; // sequences of a stream
    const uint64_t n_keep = std::min<uint64_t>(n_cells, (uint64_t) n_sink + n_window + GGML_QLUTATTN_TILE) * n_seq;
    const uint64_t n_f16  = GGML_PAD(std::min<uint64_t>(n_cells, n_keep + n_ubatch), GGML_QLUTATTN_TILE);

    // tokens that stay in f16 need no tile; what that leaves over is spare, so that tiles that lost tokens are seldom merged
    const uint32_t n_tiles  = n_cells / GGML_QLUTATTN_TILE;
    const double   share    = (shares.f16 * n_f16 + shares.packed * n_tiles * GGML_QLUTATTN_TILE) / n_cells;
    const bool     only_f16 = (uint64_t) n_sink + n_window >= n_cells || share >= 1;

    return {
        /*.n_stream  =*/unified ? 1 : n_seq_max,
        /*.n_seq_max =*/n_seq_max,
        /*.n_cells   =*/n_cells,
        /*.n_f16     =*/only_f16 ? GGML_PAD(n_cells, GGML_QLUTATTN_TILE) : (uint32_t) n_f16,
        /*.n_tiles   =*/only_f16 ? 0 : n_tiles,
        /*.n_sink    =*/n_sink,
        /*.n_window  =*/n_window,
        /*.share     =*/share,
    };
}

void llama_kv_mixed_stream::resize(const llama_kv_mixed_layout & layout) {
    f16.resize(layout.n_f16);
    packed.resize(layout.n_tiles * GGML_QLUTATTN_TILE);
    tile_shift.assign(layout.n_tiles, 0);
    kept.clear();
}

bool llama_kv_mixed_stream::tile_is_free(uint32_t tile) const {
    for (uint32_t i = 0; i < GGML_QLUTATTN_TILE; i++) {
        if (!packed.is_empty(tile * GGML_QLUTATTN_TILE + i)) {
            return false;
        }
    }
    return true;
}

uint32_t llama_kv_mixed_stream::n_f16_max() const {
    uint32_t res = f16.used_max_p1();
    for (const auto & k : kept) {
        res = std::max(res, *std::max_element(k.cells.begin(), k.cells.end()) + 1);
    }
    return res;
}

template <typename P> static void drop_kept(std::vector<llama_kv_mixed_kept> & kept, P predicate) {
    kept.erase(std::remove_if(kept.begin(), kept.end(), predicate), kept.end());
}

void llama_kv_mixed_stream::release_kept() {
    drop_kept(kept, [this](const llama_kv_mixed_kept & k) { return tile_is_free(k.tile) || k.until <= seq_pos_max(k.seq_id) + 1; });
}

void llama_kv_mixed_stream::add(uint32_t cell, llama_pos pos, const llama_kv_cell_ext & ext, int32_t n_seq_id, const llama_seq_id * seq_id) {
    drop_kept(kept, [cell](const llama_kv_mixed_kept & k) { return std::count(k.cells.begin(), k.cells.end(), cell) > 0; });
    f16.pos_set(cell, pos);
    f16.ext_set(cell, ext);
    for (int32_t k = 0; k < n_seq_id; k++) {
        f16.seq_add(cell, seq_id[k]);
    }
}

static llama_seq_id first_sequence(const llama_kv_cells & cells, uint32_t i) {
    llama_seq_id res = 0;
    while (!cells.seq_has(i, res)) {
        res++;
    }
    return res;
}

void llama_kv_mixed_stream::pack(const std::vector<llama_kv_mixed_pack> & packs, uint32_t stream) {
    std::vector<const llama_kv_mixed_pack *> own;
    for (const auto & p : packs) {
        if (p.stream == stream) {
            own.push_back(&p);
        }
    }
    std::vector<std::pair<llama_kv_cells, llama_kv_cells>> tokens; // [pack]: from packed and from f16 cells
    for (const auto * p : own) {
        tokens.emplace_back(packed.cp(p->packed), f16.cp(p->f16));
    }
    for (const auto * p : own) {
        drop_kept(kept, [p](const llama_kv_mixed_kept & k) {
            const auto is_taken = [&k](uint32_t i) {
                return i / GGML_QLUTATTN_TILE == k.tile;
            };
            return k.tile == p->tile || std::any_of(p->packed.begin(), p->packed.end(), is_taken);
        });
        for (uint32_t i : p->packed) {
            packed.rm(i);
        }
        for (uint32_t i : p->f16) {
            f16.rm(i);
        }
    }
    for (size_t i = 0; i < own.size(); i++) {
        const uint32_t first = own[i]->tile * GGML_QLUTATTN_TILE;
        packed.set(first, tokens[i].first);
        packed.set(first + own[i]->packed.size(), tokens[i].second);
        tile_shift[own[i]->tile] = own[i]->shift;
        if (own[i]->kept_until >= 0) {
            kept.push_back({ own[i]->tile, own[i]->f16, own[i]->kept_until, first_sequence(packed, first) });
        }
    }
}

void llama_kv_mixed_stream::clear() {
    f16.reset();
    packed.reset();
    std::fill(tile_shift.begin(), tile_shift.end(), 0);
    kept.clear();
}

void llama_kv_mixed_stream::seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    for (llama_kv_cells * cells : { &f16, &packed }) {
        for (uint32_t i = 0; i < cells->size(); i++) {
            if (!cells->pos_in(i, p0, p1)) {
                continue;
            }
            if (seq_id < 0) {
                cells->rm(i);
            } else if (cells->seq_has(i, seq_id)) {
                cells->seq_rm(i, seq_id);
            }
        }
    }
}

void llama_kv_mixed_stream::seq_cp(llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1) {
    kept.clear();
    for (llama_kv_cells * cells : { &f16, &packed }) {
        for (uint32_t i = 0; i < cells->size(); i++) {
            if (cells->pos_in(i, p0, p1) && cells->seq_has(i, from) && !cells->seq_has(i, to)) {
                cells->seq_add(i, to);
            }
        }
    }
}

void llama_kv_mixed_stream::seq_cp(const llama_kv_mixed_stream & src, llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1) {
    const auto copy = [&](const llama_kv_cells & a, llama_kv_cells & b) {
        for (uint32_t i = 0; i < a.size(); i++) {
            if (a.pos_in(i, p0, p1) && a.seq_has(i, from)) {
                b.pos_set(i, a.pos_get(i) - a.get_shift(i));
                b.ext_set(i, a.ext_get(i));
                b.seq_add(i, to);
                if (a.get_shift(i) != 0) {
                    b.pos_add(i, a.get_shift(i));
                }
            }
        }
    };
    clear();
    copy(src.f16, f16);
    copy(src.packed, packed);
    tile_shift = src.tile_shift;
}

void llama_kv_mixed_stream::seq_keep(llama_seq_id seq_id) {
    kept.clear();
    for (llama_kv_cells * cells : { &f16, &packed }) {
        for (uint32_t i = 0; i < cells->size(); i++) {
            cells->seq_keep(i, seq_id);
        }
    }
}

void llama_kv_mixed_stream::seq_add(llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos shift) {
    kept.clear();
    for (llama_kv_cells * cells : { &f16, &packed }) {
        for (uint32_t i = 0; i < cells->size(); i++) {
            if (cells->pos_in(i, p0, p1) && cells->seq_has(i, seq_id)) {
                cells->pos_add(i, shift);
            }
        }
    }
}

// by pos_add: pos_div of llama_kv_cells records the opposite shift
void llama_kv_mixed_stream::seq_div(llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d) {
    kept.clear();
    for (llama_kv_cells * cells : { &f16, &packed }) {
        for (uint32_t i = 0; i < cells->size(); i++) {
            if (cells->pos_in(i, p0, p1) && cells->seq_has(i, seq_id)) {
                cells->pos_add(i, cells->pos_get(i) / d - cells->pos_get(i));
            }
        }
    }
}

llama_pos llama_kv_mixed_stream::seq_pos_min(llama_seq_id seq_id) const {
    const llama_pos a = f16.seq_pos_min(seq_id);
    const llama_pos b = packed.seq_pos_min(seq_id);
    return a < 0 ? b : b < 0 ? a : std::min(a, b);
}

llama_pos llama_kv_mixed_stream::seq_pos_max(llama_seq_id seq_id) const {
    return std::max(f16.seq_pos_max(seq_id), packed.seq_pos_max(seq_id));
}
