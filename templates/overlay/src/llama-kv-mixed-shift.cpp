#include "llama-kv-mixed-shift.h"

#include <algorithm>
#include <map>
#include <set>

static void collect(const llama_kv_cells & cells, llama_kv_mixed_turned_cells & to) {
    for (uint32_t i = 0; i < cells.size(); i++) {
        if (!cells.is_empty(i) && cells.get_shift(i) != 0) {
            to.cells.push_back(i);
            to.by.push_back(cells.get_shift(i));
        }
    }
}

// by how much most tokens of a tile move; 0 if it has none
static llama_pos most_frequent_shift(const llama_kv_cells & cells, uint32_t tile) {
    std::map<llama_pos, int> counts;
    for (uint32_t i = tile * GGML_QLUTATTN_TILE; i < (tile + 1) * GGML_QLUTATTN_TILE; i++) {
        if (!cells.is_empty(i)) {
            counts[cells.get_shift(i)]++;
        }
    }
    const auto most = std::max_element(counts.begin(), counts.end(), [](const auto & a, const auto & b) { return a.second < b.second; });
    return most == counts.end() ? 0 : most->first;
}

static bool is_any(const llama_kv_mixed_turn & turn) {
    return std::any_of(turn.by.begin(), turn.by.end(), [](llama_pos by) { return by != 0; });
}

// Too many different shifts: the keys of the tiles with the rarest ones are turned, so that those tiles need none.
static void limit_shifts(std::vector<llama_pos> & tile_shift, std::vector<llama_kv_mixed_turn> & turns, const llama_kv_cells & cells) {
    std::map<llama_pos, std::vector<uint32_t>> tiles;
    for (uint32_t t = 0; t < tile_shift.size(); t++) {
        if (tile_shift[t] != 0) {
            tiles[tile_shift[t]].push_back(t);
        }
    }
    while (tiles.size() > LLAMA_KV_MIXED_MAX_SHIFTS) {
        const auto rarest =
            std::min_element(tiles.begin(), tiles.end(), [](const auto & a, const auto & b) { return a.second.size() < b.second.size(); });
        for (uint32_t t : rarest->second) {
            for (uint32_t i = 0; i < GGML_QLUTATTN_TILE; i++) {
                if (!cells.is_empty(t * GGML_QLUTATTN_TILE + i)) {
                    turns[t].by[i] += tile_shift[t];
                }
            }
            tile_shift[t] = 0;
        }
        tiles.erase(rarest);
    }
}

llama_kv_mixed_shift llama_kv_mixed_plan_shift(const llama_kv_mixed_stream & stream, bool has_packed_keys) {
    llama_kv_mixed_shift res;
    res.tile_shift = stream.tile_shift;
    collect(stream.f16, res.f16);
    if (!has_packed_keys) {
        collect(stream.packed, res.packed);
        return res;
    }

    const auto & cells = stream.packed;
    for (uint32_t t = 0; t < res.tile_shift.size(); t++) {
        const llama_pos     shift = most_frequent_shift(cells, t);
        llama_kv_mixed_turn turn  = { t, {} };
        for (uint32_t i = 0; i < GGML_QLUTATTN_TILE; i++) {
            const uint32_t cell = t * GGML_QLUTATTN_TILE + i;
            turn.by[i]          = cells.is_empty(cell) ? 0 : cells.get_shift(cell) - shift;
        }
        res.tile_shift[t] = stream.tile_is_free(t) ? 0 : res.tile_shift[t] + shift;
        res.turns.push_back(turn);
    }
    limit_shifts(res.tile_shift, res.turns, cells);
    res.turns.erase(std::remove_if(res.turns.begin(), res.turns.end(), [](const auto & turn) { return !is_any(turn); }), res.turns.end());
    return res;
}

std::vector<llama_pos> llama_kv_mixed_shifts_of(const llama_kv_mixed_stream & stream, uint32_t n) {
    std::set<llama_pos> shifts;
    for (uint32_t t = 0; t < n; t++) {
        if (stream.tile_shift[t] != 0 && !stream.tile_is_free(t)) {
            shifts.insert(stream.tile_shift[t]);
        }
    }
    return { shifts.begin(), shifts.end() };
}

bool llama_kv_mixed_needs_shift(const llama_kv_mixed_stream & stream) {
    return stream.has_shift() || llama_kv_mixed_shifts_of(stream, stream.tile_shift.size()).size() > LLAMA_KV_MIXED_MAX_SHIFTS;
}
