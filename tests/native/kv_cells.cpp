// The bookkeeping of the mixed KV cache against a plain list of tokens, for thousands of random calls. Needs no library.

#include "llama-kv-mixed-cells.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>
#include <string>

static void check(bool ok, const std::string & what) {
    if (!ok) {
        fprintf(stderr, "FAILED: %s\n", what.c_str());
        exit(1);
    }
}

using token = std::pair<llama_pos, std::set<llama_seq_id>>;

static const int ALL = 1 << 30;

struct oracle {
    std::vector<std::vector<token>> streams;

    void seq_rm(int stream, int seq_id, int p0, int p1) {
        for (auto & t : streams[stream]) {
            if (t.first >= p0 && t.first < p1) {
                if (seq_id < 0) {
                    t.second.clear();
                } else {
                    t.second.erase(seq_id);
                }
            }
        }
        sweep(stream);
    }

    void sweep(int stream) {
        auto & s = streams[stream];
        s.erase(std::remove_if(s.begin(), s.end(), [](const token & t) { return t.second.empty(); }), s.end());
    }

    int pos_max(int stream, int seq_id) const {
        int res = -1;
        for (const auto & t : streams[stream]) {
            res = t.second.count(seq_id) ? std::max(res, t.first) : res;
        }
        return res;
    }
};

static std::vector<token> tokens_of(const llama_kv_cells & cells) {
    std::vector<token> res;
    for (uint32_t i = 0; i < cells.size(); i++) {
        if (!cells.is_empty(i)) {
            token t = { cells.pos_get(i), {} };
            for (int s = 0; s < LLAMA_MAX_SEQ; s++) {
                if (cells.seq_has(i, s)) {
                    t.second.insert(s);
                }
            }
            res.push_back(t);
        }
    }
    return res;
}

// the number of newer tokens that a token has at least, in each of its sequences
static int age(const oracle & o, int stream, const token & t) {
    int res = ALL;
    for (int s : t.second) {
        res = std::min(res, o.pos_max(stream, s) - t.first);
    }
    return res;
}

static void run(uint32_t seed, bool unified, uint32_t n_seq, uint32_t n_sink, uint32_t n_window, uint32_t n_ubatch, int n_steps) {
    const uint32_t n_cells = 2048;
    const auto     layout  = llama_kv_mixed_layout::make(n_cells, n_ubatch, n_seq, unified, n_sink, n_window);
    std::mt19937   rng(seed);

    std::vector<llama_kv_mixed_stream> streams(layout.n_stream);
    for (auto & s : streams) {
        s.f16.resize(layout.n_f16);
        s.packed.resize(layout.n_tiles * GGML_QLUTATTN_TILE);
    }
    oracle o;
    o.streams.resize(layout.n_stream);

    int n_packs = 0;
    int n_full  = 0;
    for (int step = 0; step < n_steps; step++) {
        const int seq_id = rng() % n_seq;
        const int st     = unified ? 0 : seq_id;
        const int end    = o.pos_max(st, seq_id) + 1;
        const int what   = rng() % 100;
        if (what < 70) {
            // a batch of up to three ubatches, planned at once
            llama_kv_mixed_planner planner(layout, streams);
            int                    pos = end;
            struct planned {
                std::vector<llama_pos>           pos;
                std::vector<llama_kv_mixed_pack> packs;
                std::vector<uint32_t>            idxs;
            };
            std::vector<planned> plans;
            bool                 fits = true;
            for (uint32_t u = 0; u < 1 + rng() % 3 && fits; u++) {
                planned        p;
                const uint32_t n = 1 + (rng() % 3 ? rng() % 16 : rng() % n_ubatch);
                for (uint32_t i = 0; i < n; i++) {
                    p.pos.push_back(pos++);
                }
                llama_seq_id                id = seq_id;
                std::vector<llama_seq_id *> ids(n, &id);
                std::vector<int32_t>        n_ids(n, 1);
                fits = planner.add(st, n, p.pos.data(), n_ids.data(), ids.data(), p.packs, p.idxs);
                if (fits) {
                    plans.push_back(p);
                }
            }
            if (!fits) {
                bool any_tile = false;
                for (uint32_t t = 0; t < layout.n_tiles; t++) {
                    any_tile = any_tile || streams[st].tile_is_free(t);
                }
                size_t n_planned = 0;
                for (const auto & p : plans) {
                    n_planned += p.pos.size();
                }
                check(!any_tile || !plans.empty() || o.streams[st].size() + n_planned + n_ubatch > n_cells, "no room, though there is some");
                n_full++;
                streams[st].seq_rm(seq_id, 0, ALL);
                o.seq_rm(st, seq_id, 0, ALL);
                continue;
            }
            for (const auto & p : plans) {
                const bool is_tight = o.streams[st].size() + n_ubatch > layout.n_f16; // then the window may shrink
                for (const auto & pack : p.packs) {
                    check(pack.stream == (uint32_t) st && streams[st].tile_is_free(pack.tile), "a tile that is not free");
                    const auto before = tokens_of(streams[st].f16).size();
                    for (uint32_t cell : pack.cells) {
                        check(!streams[st].f16.is_empty(cell), "an empty cell is packed");
                        token t = { streams[st].f16.pos_get(cell), {} };
                        for (uint32_t s = 0; s < n_seq; s++) {
                            if (streams[st].f16.seq_has(cell, s)) {
                                t.second.insert(s);
                            }
                        }
                        if (!unified || !is_tight) {
                            check(t.first >= (int) n_sink, "a sink is packed");
                            check(age(o, st, t) >= (int) n_window, "a token of the window is packed");
                        }
                    }
                    streams[st].pack(pack);
                    check(tokens_of(streams[st].f16).size() + GGML_QLUTATTN_TILE == before, "a tile has a cell twice");
                    n_packs++;
                }
                // no full tile of one sequence's own tokens is left outside of the window
                for (uint32_t s = 0; s < n_seq; s++) {
                    size_t n_old = 0;
                    for (const auto & t : tokens_of(streams[st].f16)) {
                        n_old += t.second == std::set<llama_seq_id>{ (llama_seq_id) s } && t.first >= (int) n_sink && age(o, st, t) >= (int) n_window;
                    }
                    bool any_tile = false;
                    for (uint32_t t = 0; t < layout.n_tiles; t++) {
                        any_tile = any_tile || streams[st].tile_is_free(t);
                    }
                    check(n_old < GGML_QLUTATTN_TILE || !any_tile, "a full tile stays in f16");
                }
                check(p.idxs.size() == p.pos.size(), "a token without a cell");
                for (size_t i = 0; i < p.idxs.size(); i++) {
                    check(p.idxs[i] < layout.n_f16 && streams[st].f16.is_empty(p.idxs[i]), "a cell that is not free");
                    llama_seq_id id = seq_id;
                    streams[st].add(p.idxs[i], p.pos[i], 1, &id);
                    o.streams[st].push_back({ p.pos[i], { seq_id } });
                }
            }
        } else if (what < 85 && end > 0) {
            const int p0 = rng() % 2 ? std::max<int>(0, end - rng() % 300) : rng() % end;
            const int p1 = rng() % 2 ? ALL : p0 + 1 + rng() % 200;
            const int id = rng() % 20 ? seq_id : -1;
            streams[st].seq_rm(id, p0, p1);
            o.seq_rm(st, id, p0, p1);
        } else if (what < 92 && n_seq > 1) {
            const int to = (seq_id + 1) % n_seq;
            const int p0 = rng() % 2 ? 0 : rng() % (end + 1);
            const int p1 = rng() % 2 ? ALL : p0 + rng() % 300;
            if (unified) {
                streams[0].seq_cp(seq_id, to, p0, p1);
                for (auto & t : o.streams[0]) {
                    if (t.second.count(seq_id) && t.first >= p0 && t.first < p1) {
                        t.second.insert(to);
                    }
                }
            } else {
                streams[to].seq_cp(streams[st], seq_id, to, p0, p1);
                o.streams[to].clear();
                for (const auto & t : o.streams[st]) {
                    if (t.first >= p0 && t.first < p1) {
                        o.streams[to].push_back({ t.first, { to } });
                    }
                }
            }
        } else if (what == 98) {
            streams[st].seq_keep(seq_id);
            for (auto & t : o.streams[st]) {
                t.second = t.second.count(seq_id) ? std::set<llama_seq_id>{ seq_id } : std::set<llama_seq_id>{};
            }
            o.sweep(st);
        } else if (what == 99) {
            streams[st].clear();
            o.streams[st].clear();
        }
        for (uint32_t s = 0; s < layout.n_stream; s++) {
            auto found = tokens_of(streams[s].f16);
            auto more  = tokens_of(streams[s].packed);
            found.insert(found.end(), more.begin(), more.end());
            auto wanted = o.streams[s];
            std::sort(found.begin(), found.end());
            std::sort(wanted.begin(), wanted.end());
            check(found == wanted, "the tokens of stream " + std::to_string(s) + " are not those that were put there, step " + std::to_string(step));
            check(streams[s].n_used() == wanted.size(), "the number of tokens");
        }
        for (uint32_t id = 0; id < n_seq; id++) {
            check(streams[unified ? 0 : id].seq_pos_max(id) == o.pos_max(unified ? 0 : id, id), "the newest position");
        }
    }
    printf("{\"unified\": %d, \"sequences\": %u, \"sink\": %u, \"window\": %u, \"steps\": %d, \"tiles\": %d, \"full\": %d}\n", unified, n_seq, n_sink,
           n_window, n_steps, n_packs, n_full);
}

int main(int argc, char ** argv) {
    const int n_steps = argc > 1 ? atoi(argv[1]) : 1000;
    uint32_t  seed    = 1;
    for (bool unified : { false, true }) {
        for (uint32_t n_seq : { 1, 3 }) {
            run(seed++, unified, n_seq, 128, 256, 512, n_steps);
            run(seed++, unified, n_seq, 0, 0, 64, n_steps);
            run(seed++, unified, n_seq, 7, 100, 300, n_steps);
            run(seed++, unified, n_seq, 2048, 0, 128, n_steps);
        }
    }
    return 0;
}
