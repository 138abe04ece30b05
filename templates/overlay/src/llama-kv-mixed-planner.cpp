#include "llama-kv-mixed-planner.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

// tokens of a sequence that are verified together are at most as many, and those of a prompt more
static constexpr llama_pos SMALL_BATCH = 64;

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
    for (const auto & kept : from.kept) {
        for (uint32_t i : kept.cells) {
            s.f16[i].pos = KEPT;
        }
        s.n_free -= kept.cells.size();
    }
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
    s.pos_before = s.pos_max;
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
void llama_kv_mixed_planner::pack(uint32_t stream, std::vector<uint32_t> & cells, uint32_t n_free_wanted, std::vector<llama_kv_mixed_pack> & packs,
                                  llama_pos keep_after) {
    auto & s = snapshots[stream];

    size_t n_packed = 0;
    while (s.n_free < n_free_wanted && cells.size() - n_packed >= GGML_QLUTATTN_TILE && !s.free_tiles.empty()) {
        llama_kv_mixed_pack res;
        res.stream = stream;
        res.tile   = s.free_tiles.back();
        res.f16.assign(cells.begin() + n_packed, cells.begin() + n_packed + GGML_QLUTATTN_TILE);
        std::vector<cell> tokens;
        for (uint32_t i : res.f16) {
            tokens.push_back(std::exchange(s.f16[i], cell()));
        }
        const llama_pos due = tokens.back().pos + layout.n_window + 1;
        if (due > keep_after) {
            res.kept_until = due;
            for (uint32_t i : res.f16) {
                s.f16[i].pos = KEPT;
            }
        } else {
            s.n_free += GGML_QLUTATTN_TILE;
        }
        if (s.has_packed) {
            std::copy(tokens.begin(), tokens.end(), s.packed.begin() + res.tile * GGML_QLUTATTN_TILE);
            s.tile_shift[res.tile] = 0;
        } else {
            s.filled[res.tile] = std::move(tokens);
        }
        s.free_tiles.pop_back();
        n_packed += GGML_QLUTATTN_TILE;
        packs.push_back(res);
    }
    cells.erase(cells.begin(), cells.begin() + n_packed);
}

llama_seq_id llama_kv_mixed_planner::first_sequence(const seq_set & seqs) {
    llama_seq_id res = 0;
    while (!seqs.test(res)) {
        res++;
    }
    return res;
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
        const llama_seq_id id = first_sequence(seqs);
        pack(stream, cells, std::numeric_limits<uint32_t>::max(), packs, seqs.count() == 1 ? keep_after(s, id, s.pos_max[id]) : NEVER);
        rest.insert(rest.end(), cells.begin(), cells.end());
    }
    std::sort(rest.begin(), rest.end(), by_pos);
    return rest;
}

void llama_kv_mixed_planner::pack_ahead(uint32_t stream, llama_seq_id seq_id, llama_pos pos_last, std::vector<llama_kv_mixed_pack> & packs) {
    const snapshot & s     = snapshots[stream];
    const llama_pos  after = keep_after(s, seq_id, pos_last);
    if (after == NEVER || pos_last == s.pos_max[seq_id] + 1) {
        return;
    }
    std::vector<std::pair<llama_pos, uint32_t>> due;
    for (uint32_t i = 0; i < layout.n_f16; i++) {
        const cell & c = s.f16[i];
        if (c.pos >= 0 && !is_sink(c) && c.seqs.count() == 1 && c.seqs.test(seq_id) && pos_last > c.pos + (llama_pos) layout.n_window) {
            due.emplace_back(c.pos, i);
        }
    }
    std::sort(due.begin(), due.end());
    std::vector<uint32_t> cells;
    for (const auto & [_, i] : due) {
        cells.push_back(i);
    }
    pack(stream, cells, std::numeric_limits<uint32_t>::max(), packs, after);
}

llama_pos llama_kv_mixed_planner::keep_after(const snapshot & s, llama_seq_id seq_id, llama_pos pos_last) const {
    return pos_last - s.pos_before[seq_id] <= SMALL_BATCH ? s.pos_before[seq_id] + 1 : NEVER;
}

void llama_kv_mixed_planner::release_kept(snapshot & s) const {
    for (auto & c : s.f16) {
        if (c.pos == KEPT) {
            c.pos = FREE;
            s.n_free++;
        }
    }
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

bool llama_kv_mixed_planner::pack_into_free_tiles(uint32_t stream, uint32_t n, std::vector<llama_kv_mixed_pack> & packs) {
    auto &                s     = snapshots[stream];
    std::vector<uint32_t> cells = pack_old(stream, packs);
    if (s.n_free < n) {
        release_kept(s);
    }
    if (s.n_free < n) { // tokens of several sequences share a tile
        pack(stream, cells, n, packs);
    }
    if (s.n_free < n) { // the window shrinks, and sinks are packed last
        cells = cells_by_age(s);
        pack(stream, cells, n, packs);
    }
    return s.n_free >= n;
}

//
// tiles that have lost tokens
//

void llama_kv_mixed_planner::load_packed(uint32_t stream) {
    const auto & from = streams[stream];
    auto &       s    = snapshots[stream];
    if (s.has_packed) {
        return;
    }
    s.has_packed = true;
    s.tile_shift = from.tile_shift;
    s.packed.resize(from.packed.size());
    for (uint32_t i = 0; i < s.packed.size(); i++) {
        if (!from.packed.is_empty(i)) {
            s.packed[i] = { from.packed.pos_get(i), sequences(from.packed, i) };
        }
    }
    for (const auto & [tile, tokens] : s.filled) {
        std::copy(tokens.begin(), tokens.end(), s.packed.begin() + tile * GGML_QLUTATTN_TILE);
        s.tile_shift[tile] = 0;
    }
    s.filled.clear();
}

llama_kv_mixed_planner::tile_list llama_kv_mixed_planner::partial_tiles(const snapshot & s) const {
    tile_list res;
    for (uint32_t tile = 0; tile < layout.n_tiles; tile++) {
        partial_tile t = { tile, 0, {}, s.tile_shift[tile] };
        for (uint32_t i = tile * GGML_QLUTATTN_TILE; i < (tile + 1) * GGML_QLUTATTN_TILE; i++) {
            t.n += s.packed[i].pos >= 0;
            t.seqs |= s.packed[i].seqs;
        }
        if (t.n > 0 && t.n < GGML_QLUTATTN_TILE) {
            res.push_back(t);
        }
    }
    std::stable_sort(res.begin(), res.end(), [](const partial_tile & a, const partial_tile & b) { return a.n < b.n; });
    return res;
}

static uint32_t n_tiles_for(uint32_t n_tokens) {
    return (n_tokens + GGML_QLUTATTN_TILE - 1) / GGML_QLUTATTN_TILE;
}

// How many of these tiles, the emptiest first, to merge so that n_wanted of them become free, or as many as can be. Few tokens move, and the tiles
// that they move to are as full as can be: a token is repacked rarely.
template <typename T> static size_t choose_merge(const T & tiles, uint32_t n_wanted, uint32_t & n_tokens, uint32_t & n_freed) {
    size_t   res = 0;
    uint32_t sum = 0;
    n_tokens     = 0;
    n_freed      = 0;
    for (size_t k = 1; k <= tiles.size(); k++) {
        sum += tiles[k - 1].n;
        const uint32_t freed      = k - n_tiles_for(sum);
        const bool     fills_more = n_tiles_for(sum) == n_tiles_for(n_tokens);
        if (freed > n_freed && (n_freed < n_wanted || fills_more)) {
            res      = k;
            n_tokens = sum;
            n_freed  = freed;
        }
    }
    return res;
}

void llama_kv_mixed_planner::merge(uint32_t stream, uint32_t n_wanted, bool any_seqs, bool any_shift, std::vector<llama_kv_mixed_pack> & packs) {
    std::vector<tile_list> groups;
    for (const auto & t : partial_tiles(snapshots[stream])) {
        auto group = std::find_if(groups.begin(), groups.end(),
                                  [&](const tile_list & g) { return (any_shift || g[0].shift == t.shift) && (any_seqs || g[0].seqs == t.seqs); });
        if (group == groups.end()) {
            group = groups.insert(group, tile_list());
        }
        group->push_back(t);
    }
    while (n_wanted > 0) {
        auto     best   = groups.end();
        size_t   n_best = 0;
        uint32_t freed  = 0;
        double   cost   = std::numeric_limits<double>::max();
        for (auto group = groups.begin(); group != groups.end(); group++) {
            uint32_t     n_tokens;
            uint32_t     n_freed;
            const size_t n = choose_merge(*group, n_wanted, n_tokens, n_freed);
            if (n > 0 && (double) n_tokens / n_freed < cost) {
                best   = group;
                n_best = n;
                freed  = n_freed;
                cost   = (double) n_tokens / n_freed;
            }
        }
        if (best == groups.end()) {
            return;
        }
        gather(stream, tile_list(best->begin(), best->begin() + n_best), {}, packs);
        n_wanted -= std::min(n_wanted, freed);
        groups.erase(best);
    }
}

bool llama_kv_mixed_planner::absorb(uint32_t stream, uint32_t n, std::vector<llama_kv_mixed_pack> & packs) {
    const snapshot &            s      = snapshots[stream];
    const std::vector<uint32_t> cells  = cells_by_age(s);
    const size_t                n_old  = std::count_if(cells.begin(), cells.end(), [&](uint32_t i) { return may_be_packed(s, s.f16[i]); });
    const size_t                needed = n - s.n_free;

    tile_list partial = partial_tiles(s); // those first where f16 keys need not be turned
    std::stable_partition(partial.begin(), partial.end(), [](const partial_tile & t) { return t.shift == 0; });
    tile_list tiles;
    size_t    n_holes = 0;
    for (const auto & t : partial) {
        if (n_holes < needed) {
            tiles.push_back(t);
            n_holes += GGML_QLUTATTN_TILE - t.n;
        }
    }
    if (n_holes < needed || cells.size() < needed) {
        return false;
    }
    const size_t n_taken = std::min(n_holes, std::max(needed, n_old));
    gather(stream, tiles, { cells.begin(), cells.begin() + n_taken }, packs);
    return true;
}

// the shift of most tokens, and by how much the others are turned to fit it; empty if there are none
static std::vector<llama_pos> fit_shifts(std::vector<llama_pos> shifts, llama_pos & shift) {
    std::map<llama_pos, size_t> counts;
    for (llama_pos one : shifts) {
        counts[one]++;
    }
    shift = std::max_element(counts.begin(), counts.end(), [](const auto & a, const auto & b) { return a.second < b.second; })->first;
    if (counts.size() == 1) {
        return {};
    }
    for (llama_pos & one : shifts) {
        one -= shift;
    }
    return shifts;
}

void llama_kv_mixed_planner::gather(uint32_t stream, tile_list tiles, const std::vector<uint32_t> & f16, std::vector<llama_kv_mixed_pack> & packs) {
    auto & s = snapshots[stream];

    std::vector<std::pair<llama_pos, uint32_t>> order; // by position: what is cut later is in few tiles
    std::sort(tiles.begin(), tiles.end(), [](const partial_tile & a, const partial_tile & b) { return a.tile < b.tile; });
    for (const auto & t : tiles) {
        for (uint32_t i = t.tile * GGML_QLUTATTN_TILE; i < (t.tile + 1) * GGML_QLUTATTN_TILE; i++) {
            if (s.packed[i].pos >= 0) {
                order.emplace_back(s.packed[i].pos, i);
            }
        }
    }
    const uint32_t n_packed = s.packed.size(); // f16 cells come behind packed ones
    for (uint32_t i : f16) {
        order.emplace_back(s.f16[i].pos, n_packed + i);
    }
    std::sort(order.begin(), order.end());
    for (size_t i = 0; i < order.size(); i += GGML_QLUTATTN_TILE) { // in a tile they come behind the others, too
        std::stable_partition(order.begin() + i, order.begin() + std::min<size_t>(order.size(), i + GGML_QLUTATTN_TILE),
                              [=](const auto & token) { return token.second < n_packed; });
    }

    std::vector<cell>      tokens;
    std::vector<llama_pos> shifts;
    for (const auto & [_, i] : order) {
        shifts.push_back(i < n_packed ? s.tile_shift[i / GGML_QLUTATTN_TILE] : 0);
        tokens.push_back(std::exchange(i < n_packed ? s.packed[i] : s.f16[i - n_packed], cell()));
    }
    for (const auto & t : tiles) {
        const size_t first = (&t - tiles.data()) * GGML_QLUTATTN_TILE;
        if (first >= order.size()) {
            s.free_tiles.push_back(t.tile);
            continue;
        }
        const size_t        last = std::min<size_t>(order.size(), first + GGML_QLUTATTN_TILE);
        llama_kv_mixed_pack res;
        res.stream           = stream;
        res.tile             = t.tile;
        res.by               = fit_shifts({ shifts.begin() + first, shifts.begin() + last }, res.shift);
        s.tile_shift[t.tile] = res.shift;
        for (size_t j = first; j < last; j++) {
            const uint32_t i                                  = order[j].second;
            s.packed[t.tile * GGML_QLUTATTN_TILE + j - first] = tokens[j];
            (i < n_packed ? res.packed : res.f16).push_back(i < n_packed ? i : i - n_packed);
        }
        packs.push_back(res);
    }
    std::sort(s.free_tiles.rbegin(), s.free_tiles.rend());
    s.n_free += f16.size();
}

bool llama_kv_mixed_planner::make_room(uint32_t stream, uint32_t n, std::vector<llama_kv_mixed_pack> & packs) {
    auto & s = snapshots[stream];
    if (pack_into_free_tiles(stream, n, packs)) {
        return true;
    }
    load_packed(stream);
    const snapshot before  = s;
    const size_t   n_packs = packs.size();
    for (bool any_shift : { false, true }) { // turned keys are rounded anew
        if (any_shift && std::adjacent_find(s.tile_shift.begin(), s.tile_shift.end(), std::not_equal_to<>()) == s.tile_shift.end()) {
            break;
        }
        for (bool any_seqs : { false, true }) {
            merge(stream, n_tiles_for(n - s.n_free), any_seqs, any_shift, packs);
            if (pack_into_free_tiles(stream, n, packs)) {
                return true;
            }
            s = before;
            packs.resize(n_packs);
        }
    }
    return absorb(stream, n, packs);
}

void llama_kv_mixed_planner::place(snapshot & s, uint32_t n, const llama_pos * pos, const int32_t * n_seq_id, llama_seq_id * const * seq_id,
                                   std::vector<uint32_t> & idxs) const {
    for (uint32_t i = 0, cur = 0; i < n; i++, cur++) {
        while (s.f16[cur].pos != FREE) {
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
    if (s.n_used + n > layout.n_cells || !make_room(stream, n, packs)) {
        return false;
    }
    std::map<llama_seq_id, llama_pos> last; // of tokens of one sequence
    for (uint32_t i = 0; i < n; i++) {
        if (n_seq_id[i] == 1) {
            last[seq_id[i][0]] = std::max(last[seq_id[i][0]], pos[i]);
        }
    }
    for (const auto & [id, pos_last] : last) {
        pack_ahead(stream, id, pos_last, packs);
    }
    place(s, n, pos, n_seq_id, seq_id, idxs);
    return true;
}
