// What a token sees in tiles and what in f16, by the bookkeeping of the mixed KV cache alone: the same for tokens that are decoded one by one and
// for those that are verified together, some of which are taken back. Needs no library.

#include "llama-kv-mixed-planner.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>

static void check(bool ok, const std::string & what) {
    if (!ok) {
        fprintf(stderr, "FAILED: %s\n", what.c_str());
        exit(1);
    }
}

// a token of a sequence
using token = std::pair<llama_seq_id, llama_pos>;

// by each token, the positions of those that it sees in tiles
using seen = std::map<token, std::vector<llama_pos>>;

struct cache {
    const llama_kv_mixed_layout        layout;
    std::vector<llama_kv_mixed_stream> streams;
    int                                n_kept = 0; // tiles that were packed ahead

    explicit cache(const llama_kv_mixed_layout & layout) : layout(layout), streams(layout.n_stream) {
        for (auto & s : streams) {
            s.resize(layout);
        }
    }

    llama_kv_mixed_stream & stream_of(llama_seq_id seq_id) { return streams[layout.n_stream == 1 ? 0 : seq_id]; }

    seen decode(const std::vector<std::vector<token>> & ubatches);
    void decode_ubatch(llama_kv_mixed_planner & planner, uint32_t stream, const std::vector<token> & tokens);

    std::vector<llama_pos> in_tiles(const token & query);
};

// the tokens of a stream
void cache::decode_ubatch(llama_kv_mixed_planner & planner, uint32_t stream, const std::vector<token> & tokens) {
    std::vector<llama_pos>      pos;
    std::vector<llama_seq_id>   ids;
    std::vector<llama_seq_id *> id_ptrs;
    for (const auto & [id, p] : tokens) {
        pos.push_back(p);
        ids.push_back(id);
    }
    for (auto & id : ids) {
        id_ptrs.push_back(&id);
    }
    const std::vector<int32_t>       n_ids(tokens.size(), 1);
    std::vector<llama_kv_mixed_pack> packs;
    std::vector<uint32_t>            idxs;
    check(planner.add(stream, tokens.size(), pos.data(), n_ids.data(), id_ptrs.data(), packs, idxs), "no room");
    n_kept += std::count_if(packs.begin(), packs.end(), [](const auto & p) { return p.kept_until >= 0; });
    streams[stream].pack(packs, stream);
    for (size_t i = 0; i < tokens.size(); i++) {
        streams[stream].add(idxs[i], pos[i], {}, 1, &ids[i]);
    }
}

seen cache::decode(const std::vector<std::vector<token>> & ubatches) {
    for (auto & s : streams) {
        s.release_kept();
    }
    llama_kv_mixed_planner planner(layout, streams);
    seen                   res;
    for (const auto & ubatch : ubatches) {
        for (uint32_t s = 0; s < layout.n_stream; s++) {
            std::vector<token> own;
            std::copy_if(ubatch.begin(), ubatch.end(), std::back_inserter(own), [&](const token & t) { return &stream_of(t.first) == &streams[s]; });
            if (!own.empty()) {
                decode_ubatch(planner, s, own);
            }
        }
        for (const token & t : ubatch) {
            res[t] = in_tiles(t);
        }
    }
    return res;
}

// as masks have it; together with the f16 cells, a token sees each one before it once
std::vector<llama_pos> cache::in_tiles(const token & query) {
    const auto & [id, pos]   = query;
    const auto &           s = stream_of(id);
    std::vector<llama_pos> res;
    std::vector<llama_pos> all;
    for (uint32_t i = 0; i < s.packed.size(); i++) {
        if (!s.packed.is_empty(i) && s.packed.seq_has(i, id) && s.packed.pos_get(i) <= pos) {
            all.push_back(s.packed.pos_get(i));
            const bool is_kept =
                std::any_of(s.kept.begin(), s.kept.end(), [&, p = pos](const auto & k) { return k.tile == i / GGML_QLUTATTN_TILE && p < k.until; });
            if (!is_kept) {
                res.push_back(s.packed.pos_get(i));
            }
        }
    }
    for (uint32_t i = 0; i < s.f16.size(); i++) {
        if (!s.f16.is_empty(i) && s.f16.seq_has(i, id) && s.f16.pos_get(i) <= pos) {
            all.push_back(s.f16.pos_get(i));
        }
    }
    for (const auto & k : s.kept) {
        check(std::all_of(k.cells.begin(), k.cells.end(), [&s](uint32_t i) { return s.f16.is_empty(i); }), "a kept cell is used");
    }
    std::sort(all.begin(), all.end());
    check(all.size() == (size_t) pos + 1 && all.back() == pos && std::adjacent_find(all.begin(), all.end()) == all.end(),
          "a token does not see each of those before it once");
    std::sort(res.begin(), res.end());
    return res;
}

static std::vector<token> some(llama_seq_id id, llama_pos first, int n) {
    std::vector<token> res;
    for (int i = 0; i < n; i++) {
        res.emplace_back(id, first + i);
    }
    return res;
}

static void fill(cache & c, uint32_t n_seq, int n_prompt, int n_ubatch) {
    for (uint32_t id = 0; id < n_seq; id++) {
        for (int p = 0; p < n_prompt; p += n_ubatch) {
            c.decode({ some(id, p, std::min(n_ubatch, n_prompt - p)) });
        }
    }
}

static void run(bool unified, uint32_t n_seq, uint32_t n_sink, uint32_t n_window, int n_draft, uint32_t seed) {
    const int  n_prompt = 300;
    const int  n        = 1200;
    const auto layout   = llama_kv_mixed_layout::make(2048 * n_seq, 512, n_seq, unified, n_sink, n_window, { 1.0, 0.3 });
    cache      one_by_one(layout);
    cache      together(layout);
    fill(one_by_one, n_seq, n_prompt, 512);
    fill(together, n_seq, n_prompt, 512);

    seen expected;
    for (int p = n_prompt; p < n; p++) {
        for (uint32_t id = 0; id < n_seq; id++) {
            expected.merge(one_by_one.decode({ some(id, p, 1) }));
        }
    }
    check(one_by_one.n_kept == 0, "a token that is decoded alone packs ahead");

    std::mt19937     rng(seed);
    std::vector<int> end(n_seq, n_prompt);
    while (*std::max_element(end.begin(), end.end()) + n_draft < n) {
        std::vector<std::vector<token>> ubatches(1 + rng() % 2); // those of different lengths may come in several ubatches
        std::vector<int>                n_right(n_seq);
        for (uint32_t id = 0; id < n_seq; id++) {
            const auto   tokens = some(id, end[id], 1 + rng() % (n_draft + 1));
            const size_t cut    = ubatches.size() == 1 ? tokens.size() : rng() % (tokens.size() + 1);
            ubatches.front().insert(ubatches.front().end(), tokens.begin(), tokens.begin() + cut);
            ubatches.back().insert(ubatches.back().end(), tokens.begin() + cut, tokens.end());
            n_right[id] = 1 + rng() % tokens.size();
        }
        const seen found = together.decode(ubatches);
        for (uint32_t id = 0; id < n_seq; id++) {
            for (int i = 0; i < n_right[id]; i++, end[id]++) {
                const token t = { id, end[id] };
                check(found.at(t) == expected.at(t), "token " + std::to_string(t.second) + " of sequence " + std::to_string(id) +
                                                         " sees other tokens in tiles than alone: " + std::to_string(found.at(t).size()) + ", not " +
                                                         std::to_string(expected.at(t).size()));
            }
            together.stream_of(id).seq_rm(id, end[id], 1 << 30);
        }
    }
    printf("{\"unified\": %d, \"sequences\": %u, \"sink\": %u, \"window\": %u, \"draft\": %d, \"ahead\": %d}\n", unified, n_seq, n_sink, n_window,
           n_draft, together.n_kept);
}

int main() {
    uint32_t seed = 1;
    for (bool unified : { false, true }) {
        for (uint32_t n_seq : { 1, 3 }) {
            for (uint32_t n_window : { 32, 64, 256 }) {
                for (int n_draft : { 1, 8, 31 }) {
                    run(unified, n_seq, 16, n_window, n_draft, seed++);
                }
            }
        }
    }
    return 0;
}
