// The bookkeeping of the mixed KV cache against a plain list of tokens, for thousands of random calls. Needs no library.

#include "llama-kv-mixed-planner.h"

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

// the other parts of an M-RoPE position, here functions of the first; they must stay with their token
static llama_kv_cell_ext ext_of(llama_pos pos) {
    llama_kv_cell_ext res;
    res.x = pos % 17;
    res.y = pos % 31 + 1;
    return res;
}

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
            const auto & ext = cells.ext_get(i);
            check(ext.x == ext_of(t.first).x && ext.y == ext_of(t.first).y, "a token has lost a part of its position");
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

// one ubatch as planned
struct planned {
    std::vector<llama_pos>           pos;
    std::vector<llama_kv_mixed_pack> packs;
    std::vector<uint32_t>            idxs;
};

// a cache's bookkeeping and the plain list, given the same random calls
struct simulation {
    const bool     unified;
    const uint32_t n_cells = 2048;
    const uint32_t n_seq;
    const uint32_t n_sink;
    const uint32_t n_window;
    const uint32_t n_ubatch;

    const llama_kv_mixed_layout        layout;
    std::vector<llama_kv_mixed_stream> streams;
    oracle                             expected;
    std::mt19937                       rng;

    int n_packs   = 0;
    int n_repacks = 0;
    int n_full    = 0;

    simulation(uint32_t seed, bool unified, uint32_t n_seq, uint32_t n_sink, uint32_t n_window, uint32_t n_ubatch) :
        unified(unified),
        n_seq(n_seq),
        n_sink(n_sink),
        n_window(n_window),
        n_ubatch(n_ubatch),
        layout(llama_kv_mixed_layout::make(n_cells, n_ubatch, n_seq, unified, n_sink, n_window, { 1.0, 0.3 })),
        streams(layout.n_stream),
        rng(seed) {
        for (auto & s : streams) {
            s.resize(layout);
        }
        expected.streams.resize(layout.n_stream);
    }

    int stream_of(int seq_id) const { return unified ? 0 : seq_id; }

    bool has_free_tile(int st) const {
        bool any_tile = false;
        for (uint32_t t = 0; t < layout.n_tiles; t++) {
            any_tile = any_tile || streams[st].tile_is_free(t);
        }
        return any_tile;
    }

    bool may_be_packed(int st, const token & t) const { return t.first >= (int) n_sink && age(expected, st, t) >= (int) n_window; }

    uint32_t plan(int seq_id, std::vector<planned> & plans);
    void     check_full(int seq_id, const std::vector<planned> & plans, uint32_t n_refused);
    void     check_pack(int st, const llama_kv_mixed_pack & pack, bool is_tight) const;
    void     apply_packs(int st, const std::vector<llama_kv_mixed_pack> & packs, bool is_tight);
    void     apply(int seq_id, const planned & p);
    void     check_old_tokens_are_packed(int st) const;
    void     remove(int seq_id);
    void     perforate(int seq_id);
    void     copy(int seq_id);
    void     keep(int seq_id);
    void     clear(int seq_id);
    void     check_tokens(int step) const;
    void     step(int step);
};

// a batch of up to three ubatches, planned at once; the size of the one that does not fit, or 0
uint32_t simulation::plan(int seq_id, std::vector<planned> & plans) {
    const int st = stream_of(seq_id);
    streams[st].release_kept();
    llama_kv_mixed_planner planner(layout, streams);
    int                    pos = expected.pos_max(st, seq_id) + 1;
    for (uint32_t u = 0; u < 1 + rng() % 3; u++) {
        planned        p;
        const uint32_t n = 1 + (rng() % 3 ? rng() % 16 : rng() % n_ubatch);
        for (uint32_t i = 0; i < n; i++) {
            p.pos.push_back(pos++);
        }
        llama_seq_id                id = seq_id;
        std::vector<llama_seq_id *> ids(n, &id);
        std::vector<int32_t>        n_ids(n, 1);
        if (!planner.add(st, n, p.pos.data(), n_ids.data(), ids.data(), p.packs, p.idxs)) {
            return n;
        }
        plans.push_back(p);
    }
    return 0;
}

// cut a sequence in many places: most tiles keep some of their tokens
void simulation::perforate(int seq_id) {
    const int st  = stream_of(seq_id);
    const int end = expected.pos_max(st, seq_id) + 1;
    for (int p0 = rng() % 60; p0 < end; p0 += 40 + rng() % 150) {
        const int p1 = p0 + 1 + rng() % 40;
        streams[st].seq_rm(seq_id, p0, p1);
        expected.seq_rm(st, seq_id, p0, p1);
    }
}

// a batch that did not fit has more tokens than there is room for; then the sequence is removed, or cut
void simulation::check_full(int seq_id, const std::vector<planned> & plans, uint32_t n_refused) {
    const int st        = stream_of(seq_id);
    size_t    n_planned = 0;
    for (const auto & p : plans) {
        n_planned += p.pos.size();
    }
    check(expected.streams[st].size() + n_planned + n_refused > n_cells, "no room, though there is some");
    n_full++;
    if (rng() % 4) {
        perforate(seq_id);
    } else {
        streams[st].seq_rm(seq_id, 0, ALL);
        expected.seq_rm(st, seq_id, 0, ALL);
    }
}

// a pack takes f16 tokens that may leave, and whole tiles that are not full
void simulation::check_pack(int st, const llama_kv_mixed_pack & pack, bool is_tight) const {
    const auto & stream = streams[st];
    check(pack.stream == (uint32_t) st && pack.tile < layout.n_tiles, "a tile that is not there");
    check(!pack.f16.empty() || !pack.packed.empty(), "a pack of nothing");
    check(pack.f16.size() + pack.packed.size() <= GGML_QLUTATTN_TILE, "too many tokens for a tile");
    for (uint32_t cell : pack.f16) {
        check(!stream.f16.is_empty(cell), "an empty cell is packed");
        token t = { stream.f16.pos_get(cell), {} };
        for (uint32_t s = 0; s < n_seq; s++) {
            if (stream.f16.seq_has(cell, s)) {
                t.second.insert(s);
            }
        }
        if (!unified || !is_tight) {
            check(t.first >= (int) n_sink, "a sink is packed");
            check(age(expected, st, t) >= (int) n_window || t.first + (int) n_window < pack.kept_until, "a token of the window is packed");
        }
    }
    for (uint32_t cell : pack.packed) {
        check(!stream.packed.is_empty(cell), "an empty packed cell is packed");
    }
}

void simulation::apply_packs(int st, const std::vector<llama_kv_mixed_pack> & packs, bool is_tight) {
    auto &             stream = streams[st];
    std::set<uint32_t> targets;
    std::set<uint32_t> sources; // tiles
    std::set<uint32_t> taken;   // packed cells
    size_t             n_f16 = 0;
    for (const auto & pack : packs) {
        check_pack(st, pack, is_tight);
        check(targets.insert(pack.tile).second, "a tile is filled twice");
        n_f16 += pack.f16.size();
        for (uint32_t cell : pack.packed) {
            check(taken.insert(cell).second, "a packed cell is taken twice");
            sources.insert(cell / GGML_QLUTATTN_TILE);
        }
        n_packs += pack.packed.empty();
        n_repacks += !pack.packed.empty();
    }
    for (uint32_t tile : sources) {
        for (uint32_t i = tile * GGML_QLUTATTN_TILE; i < (tile + 1) * GGML_QLUTATTN_TILE; i++) {
            check(stream.packed.is_empty(i) || taken.count(i), "a tile is given up by halves");
        }
    }
    for (uint32_t tile : targets) {
        check(stream.tile_is_free(tile) || sources.count(tile), "a tile that is not free");
    }
    const auto before = tokens_of(stream.f16).size();
    stream.pack(packs, st);
    check(tokens_of(stream.f16).size() + n_f16 == before, "a tile has a cell twice");
}

// no full tile of one sequence's own tokens is left outside of the window
void simulation::check_old_tokens_are_packed(int st) const {
    for (uint32_t s = 0; s < n_seq; s++) {
        size_t n_old = 0;
        for (const auto & t : tokens_of(streams[st].f16)) {
            n_old += t.second == std::set<llama_seq_id>{ (llama_seq_id) s } && may_be_packed(st, t);
        }
        check(n_old < GGML_QLUTATTN_TILE || !has_free_tile(st), "a full tile stays in f16");
    }
}

void simulation::apply(int seq_id, const planned & p) {
    const int  st       = stream_of(seq_id);
    const bool is_tight = expected.streams[st].size() + n_ubatch > layout.n_f16; // then the window may shrink
    apply_packs(st, p.packs, is_tight);
    check_old_tokens_are_packed(st);
    check(p.idxs.size() == p.pos.size(), "a token without a cell");
    for (size_t i = 0; i < p.idxs.size(); i++) {
        check(p.idxs[i] < layout.n_f16 && streams[st].f16.is_empty(p.idxs[i]), "a cell that is not free");
        llama_seq_id id = seq_id;
        streams[st].add(p.idxs[i], p.pos[i], ext_of(p.pos[i]), 1, &id);
        expected.streams[st].push_back({ p.pos[i], { seq_id } });
    }
}

void simulation::remove(int seq_id) {
    const int st  = stream_of(seq_id);
    const int end = expected.pos_max(st, seq_id) + 1;
    const int p0  = rng() % 4 ? std::max<int>(0, end - rng() % 300) : rng() % end;
    const int p1  = rng() % 4 == 0 ? ALL : p0 + 1 + rng() % 100;
    const int id  = rng() % 20 ? seq_id : -1;
    streams[st].seq_rm(id, p0, p1);
    expected.seq_rm(st, id, p0, p1);
}

void simulation::copy(int seq_id) {
    const int st  = stream_of(seq_id);
    const int end = expected.pos_max(st, seq_id) + 1;
    const int to  = (seq_id + 1) % n_seq;
    const int p0  = rng() % 2 ? 0 : rng() % (end + 1);
    const int p1  = rng() % 2 ? ALL : p0 + rng() % 300;
    if (unified) {
        streams[0].seq_cp(seq_id, to, p0, p1);
        for (auto & t : expected.streams[0]) {
            if (t.second.count(seq_id) && t.first >= p0 && t.first < p1) {
                t.second.insert(to);
            }
        }
    } else {
        streams[to].seq_cp(streams[st], seq_id, to, p0, p1);
        expected.streams[to].clear();
        for (const auto & t : expected.streams[st]) {
            if (t.first >= p0 && t.first < p1) {
                expected.streams[to].push_back({ t.first, { to } });
            }
        }
    }
}

void simulation::keep(int seq_id) {
    const int st = stream_of(seq_id);
    streams[st].seq_keep(seq_id);
    for (auto & t : expected.streams[st]) {
        t.second = t.second.count(seq_id) ? std::set<llama_seq_id>{ seq_id } : std::set<llama_seq_id>{};
    }
    expected.sweep(st);
}

void simulation::clear(int seq_id) {
    streams[stream_of(seq_id)].clear();
    expected.streams[stream_of(seq_id)].clear();
}

void simulation::check_tokens(int step) const {
    for (uint32_t s = 0; s < layout.n_stream; s++) {
        auto found  = tokens_of(streams[s].f16);
        auto packed = tokens_of(streams[s].packed);
        found.insert(found.end(), packed.begin(), packed.end());
        auto wanted = expected.streams[s];
        std::sort(found.begin(), found.end());
        std::sort(wanted.begin(), wanted.end());
        check(found == wanted, "the tokens of stream " + std::to_string(s) + " are not those that were put there, step " + std::to_string(step));
        check(streams[s].n_used() == wanted.size(), "the number of tokens");
    }
    for (uint32_t id = 0; id < n_seq; id++) {
        check(streams[stream_of(id)].seq_pos_max(id) == expected.pos_max(stream_of(id), id), "the newest position");
    }
}

void simulation::step(int step) {
    const int seq_id = rng() % n_seq;
    const int end    = expected.pos_max(stream_of(seq_id), seq_id) + 1;
    const int what   = rng() % 100;
    if (what < 70) {
        std::vector<planned> plans;
        if (const uint32_t n_refused = plan(seq_id, plans)) {
            check_full(seq_id, plans, n_refused);
            return;
        }
        for (const auto & p : plans) {
            apply(seq_id, p);
        }
    } else if (what < 85 && end > 0) {
        remove(seq_id);
    } else if (what < 92 && n_seq > 1) {
        copy(seq_id);
    } else if (what < 94 && end > 0) {
        perforate(seq_id);
    } else if (what == 98) {
        keep(seq_id);
    } else if (what == 99) {
        clear(seq_id);
    }
    check_tokens(step);
}

static void run(uint32_t seed, bool unified, uint32_t n_seq, uint32_t n_sink, uint32_t n_window, uint32_t n_ubatch, int n_steps) {
    simulation sim(seed, unified, n_seq, n_sink, n_window, n_ubatch);
    for (int i = 0; i < n_steps; i++) {
        sim.step(i);
    }
    printf("{\"unified\": %d, \"sequences\": %u, \"sink\": %u, \"window\": %u, \"steps\": %d, \"tiles\": %d, \"repacked\": %d, \"full\": %d}\n",
           unified, n_seq, n_sink, n_window, n_steps, sim.n_packs, sim.n_repacks, sim.n_full);
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
