#include "llama-kv-mixed-cells.h"

#include "ggml.h"

#include <algorithm>
#include <limits>
#include <utility>

llama_kv_mixed_layout llama_kv_mixed_layout::make(uint32_t n_cells, uint32_t n_ubatch, uint32_t n_seq_max, bool unified, uint32_t n_sink,
                                                  uint32_t n_window) {
    const uint64_t n_seq  = unified ? n_seq_max : 1; // sequences of a stream
    const uint64_t n_keep = std::min<uint64_t>(n_cells, (uint64_t) n_sink + n_window + GGML_QLUTATTN_TILE) * n_seq;
    const uint64_t n_f16  = GGML_PAD(std::min<uint64_t>(n_cells, n_keep + n_ubatch), GGML_QLUTATTN_TILE);

    // tokens that stay in f16 need no tile; what that leaves over is spare, for tiles that lose tokens and are not full again
    return {
        /*.n_stream =*/unified ? 1 : n_seq_max,
        /*.n_cells  =*/n_cells,
        /*.n_f16    =*/(uint32_t) n_f16,
        /*.n_tiles  =*/(uint64_t) n_sink + n_window >= n_cells ? 0 : n_cells / GGML_QLUTATTN_TILE,
        /*.n_sink   =*/n_sink,
        /*.n_window =*/n_window,
    };
}

bool llama_kv_mixed_stream::tile_is_free(uint32_t tile) const {
    for (uint32_t i = 0; i < GGML_QLUTATTN_TILE; i++) {
        if (!packed.is_empty(tile * GGML_QLUTATTN_TILE + i)) {
            return false;
        }
    }
    return true;
}

void llama_kv_mixed_stream::add(uint32_t cell, llama_pos pos, const llama_kv_cell_ext & ext, int32_t n_seq_id, const llama_seq_id * seq_id) {
    f16.pos_set(cell, pos);
    f16.ext_set(cell, ext);
    for (int32_t k = 0; k < n_seq_id; k++) {
        f16.seq_add(cell, seq_id[k]);
    }
}

void llama_kv_mixed_stream::pack(const llama_kv_mixed_pack & p) {
    for (uint32_t i = 0; i < GGML_QLUTATTN_TILE; i++) {
        const uint32_t from = p.cells[i];
        const uint32_t to   = p.tile * GGML_QLUTATTN_TILE + i;
        packed.pos_set(to, f16.pos_get(from));
        packed.ext_set(to, f16.ext_get(from));
        for (llama_seq_id seq_id = 0; seq_id < LLAMA_MAX_SEQ; seq_id++) {
            if (f16.seq_has(from, seq_id)) {
                packed.seq_add(to, seq_id);
            }
        }
        f16.rm(from);
    }
}

void llama_kv_mixed_stream::clear() {
    f16.reset();
    packed.reset();
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
                b.pos_set(i, a.pos_get(i));
                b.ext_set(i, a.ext_get(i));
                b.seq_add(i, to);
            }
        }
    };
    clear();
    copy(src.f16, f16);
    copy(src.packed, packed);
}

void llama_kv_mixed_stream::seq_keep(llama_seq_id seq_id) {
    for (llama_kv_cells * cells : { &f16, &packed }) {
        for (uint32_t i = 0; i < cells->size(); i++) {
            cells->seq_keep(i, seq_id);
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

llama_kv_mixed_planner::llama_kv_mixed_planner(const llama_kv_mixed_layout & layout, const std::vector<llama_kv_mixed_stream> & streams) :
    layout(layout), streams(streams), snapshots(layout.n_stream) {}

// as llama_kv_cells::seq_get_all of newer upstreams
llama_kv_mixed_planner::seq_set llama_kv_mixed_planner::sequences(const llama_kv_cells & cells, uint32_t i) {
    seq_set found;
    for (llama_seq_id s = 0, left = cells.seq_count(i); left > 0; s++) {
        if (cells.seq_has(i, s)) {
            found.set(s);
            left--;
        }
    }
    return found;
}

void llama_kv_mixed_planner::load(uint32_t stream) {
    const auto & from = streams[stream];
    auto &       s    = snapshots[stream];

    s.is_loaded = true;
    s.n_used    = from.n_used();
    s.n_free    = layout.n_f16 - from.f16.get_used();
    s.f16.resize(layout.n_f16);
    for (uint32_t i = 0; i < layout.n_f16; i++) {
        if (!from.f16.is_empty(i)) {
            s.f16[i] = { from.f16.pos_get(i), sequences(from.f16, i) };
        }
    }
    for (uint32_t t = layout.n_tiles; t-- > 0;) {
        if (from.tile_is_free(t)) {
            s.free_tiles.push_back(t);
        }
    }
    s.pos_max.resize(LLAMA_MAX_SEQ);
    for (llama_seq_id seq_id = 0; seq_id < LLAMA_MAX_SEQ; seq_id++) {
        s.pos_max[seq_id] = from.seq_pos_max(seq_id);
    }
}

// the distance to the newest token, in the sequence of the cell where that is shortest
int64_t llama_kv_mixed_planner::age(const snapshot & s, const cell & c) const {
    int64_t res  = std::numeric_limits<int64_t>::max();
    size_t  left = c.seqs.count();
    for (llama_seq_id seq_id = 0; left > 0; seq_id++) {
        if (c.seqs.test(seq_id)) {
            res = std::min<int64_t>(res, s.pos_max[seq_id] - c.pos);
            left--;
        }
    }
    return res;
}

bool llama_kv_mixed_planner::is_sink(const cell & c) const {
    return c.pos < (llama_pos) layout.n_sink;
}

bool llama_kv_mixed_planner::may_be_packed(const snapshot & s, const cell & c) const {
    return !is_sink(c) && age(s, c) >= (int64_t) layout.n_window;
}

// pack cells, the first ones first, a tile at a time, until this many f16 cells are free; those that were packed are removed from the list
void llama_kv_mixed_planner::pack(uint32_t stream, std::vector<uint32_t> & cells, uint32_t n_free_wanted, std::vector<llama_kv_mixed_pack> & packs) {
    auto & s = snapshots[stream];

    size_t n_packed = 0;
    while (s.n_free < n_free_wanted && cells.size() - n_packed >= GGML_QLUTATTN_TILE && !s.free_tiles.empty()) {
        llama_kv_mixed_pack res;
        res.stream = stream;
        res.tile   = s.free_tiles.back();
        std::copy_n(cells.begin() + n_packed, GGML_QLUTATTN_TILE, res.cells.begin());
        for (uint32_t i : res.cells) {
            s.f16[i] = cell();
        }
        s.free_tiles.pop_back();
        s.n_free += GGML_QLUTATTN_TILE;
        n_packed += GGML_QLUTATTN_TILE;
        packs.push_back(res);
    }
    cells.erase(cells.begin(), cells.begin() + n_packed);
}

std::vector<uint32_t> llama_kv_mixed_planner::pack_old(uint32_t stream, std::vector<llama_kv_mixed_pack> & packs) {
    const snapshot & s = snapshots[stream];

    const auto by_pos = [&s](uint32_t a, uint32_t b) {
        return std::make_pair(s.f16[a].pos, a) < std::make_pair(s.f16[b].pos, b);
    };

    // by the sequences that tokens belong to: when those are removed, whole tiles become free
    std::vector<std::pair<seq_set, std::vector<uint32_t>>> groups;
    for (uint32_t i = 0; i < layout.n_f16; i++) {
        const cell & c = s.f16[i];
        if (c.pos < 0 || !may_be_packed(s, c)) {
            continue;
        }
        auto group = std::find_if(groups.begin(), groups.end(), [&c](const auto & g) { return g.first == c.seqs; });
        if (group == groups.end()) {
            group = groups.insert(group, { c.seqs, {} });
        }
        group->second.push_back(i);
    }
    std::vector<uint32_t> rest;
    for (auto & [seqs, cells] : groups) {
        std::sort(cells.begin(), cells.end(), by_pos);
        pack(stream, cells, std::numeric_limits<uint32_t>::max(), packs);
        rest.insert(rest.end(), cells.begin(), cells.end());
    }
    std::sort(rest.begin(), rest.end(), by_pos);
    return rest;
}

std::vector<uint32_t> llama_kv_mixed_planner::cells_by_age(const snapshot & s) const {
    std::vector<std::pair<int64_t, uint32_t>> by_age;
    for (uint32_t i = 0; i < layout.n_f16; i++) {
        const cell & c = s.f16[i];
        if (c.pos >= 0) {
            by_age.emplace_back(is_sink(c) ? 1 : -age(s, c), i);
        }
    }
    std::sort(by_age.begin(), by_age.end());

    std::vector<uint32_t> res;
    for (const auto & [_, i] : by_age) {
        res.push_back(i);
    }
    return res;
}

void llama_kv_mixed_planner::place(snapshot & s, uint32_t n, const llama_pos * pos, const int32_t * n_seq_id, llama_seq_id * const * seq_id,
                                   std::vector<uint32_t> & idxs) const {
    for (uint32_t i = 0, cur = 0; i < n; i++, cur++) {
        while (s.f16[cur].pos >= 0) {
            cur++;
        }
        s.f16[cur].pos = pos[i];
        for (int32_t k = 0; k < n_seq_id[i]; k++) {
            s.f16[cur].seqs.set(seq_id[i][k]);
            s.pos_max[seq_id[i][k]] = std::max(s.pos_max[seq_id[i][k]], pos[i]);
        }
        idxs.push_back(cur);
    }
    s.n_free -= n;
    s.n_used += n;
}

bool llama_kv_mixed_planner::add(uint32_t stream, uint32_t n, const llama_pos * pos, const int32_t * n_seq_id, llama_seq_id * const * seq_id,
                                 std::vector<llama_kv_mixed_pack> & packs, std::vector<uint32_t> & idxs) {
    auto & s = snapshots[stream];
    if (!s.is_loaded) {
        load(stream);
    }
    if (s.n_used + n > layout.n_cells) {
        return false;
    }

    std::vector<uint32_t> cells = pack_old(stream, packs);
    if (s.n_free < n) { // tokens of several sequences share a tile
        pack(stream, cells, n, packs);
    }
    if (s.n_free < n) { // the window shrinks, and sinks are packed last
        cells = cells_by_age(s);
        pack(stream, cells, n, packs);
    }
    if (s.n_free < n) {
        return false;
    }
    place(s, n, pos, n_seq_id, seq_id, idxs);
    return true;
}
