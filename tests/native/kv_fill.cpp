// The bookkeeping of contexts that lose tokens again and again in the middle of tiles: how full they become, and how many tokens are repacked for
// that, how often. Needs no library.

#include "llama-kv-mixed-planner.h"
#include "llama-kv-mixed-shift.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>

static const int ALL  = 1 << 30;
static const int STEP = 50; // tokens of a batch

static void check(bool ok, const std::string & what) {
    if (!ok) {
        fprintf(stderr, "FAILED: %s\n", what.c_str());
        exit(1);
    }
}

// the positions that the keys of a stream are rotated to
struct key_positions {
    std::vector<llama_pos> f16;
    std::vector<llama_pos> packed;

    void pack(const std::vector<llama_kv_mixed_pack> & packs) {
        const std::vector<llama_pos> from = packed;
        for (const auto & p : packs) {
            uint32_t to = p.tile * GGML_QLUTATTN_TILE;
            for (uint32_t i : p.packed) {
                packed[to++] = from[i];
            }
            for (uint32_t i : p.f16) {
                packed[to++] = f16[i];
            }
            for (size_t i = 0; i < p.by.size(); i++) {
                packed[p.tile * GGML_QLUTATTN_TILE + i] += p.by[i];
            }
        }
    }

    void shift(const llama_kv_mixed_shift & plan) {
        for (size_t i = 0; i < plan.f16.cells.size(); i++) {
            f16[plan.f16.cells[i]] += plan.f16.by[i];
        }
        for (const auto & turn : plan.turns) {
            for (uint32_t i = 0; i < GGML_QLUTATTN_TILE; i++) {
                packed[turn.tile * GGML_QLUTATTN_TILE + i] += turn.by[i];
            }
        }
    }

    void check_all(const llama_kv_mixed_stream & stream) const {
        for (uint32_t i = 0; i < f16.size(); i++) {
            check(stream.f16.is_empty(i) || stream.f16.pos_get(i) == f16[i], "a key in f16 is rotated to another position");
        }
        for (uint32_t i = 0; i < packed.size(); i++) {
            check(stream.packed.is_empty(i) || stream.packed.pos_get(i) == packed[i] + stream.tile_shift[i / GGML_QLUTATTN_TILE],
                  "a packed key is rotated to another position than its tile's shift says");
        }
    }
};

struct churned {
    const llama_kv_mixed_layout        layout;
    std::vector<llama_kv_mixed_stream> streams;
    std::vector<key_positions>         keys;
    std::vector<int>                   end; // of each sequence
    std::mt19937                       rng{ 1 };

    std::map<std::pair<int, llama_pos>, int> times; // (sequence, position): how often the token was repacked

    size_t n_appended = 0;
    size_t n_repacked = 0;

    churned(uint32_t n_cells, uint32_t n_seq, bool unified) :
        layout(llama_kv_mixed_layout::make(n_cells, 512, n_seq, unified, 128, 256, { 1.0, 0.3 })), streams(layout.n_stream), end(n_seq, 0) {
        for (auto & s : streams) {
            s.resize(layout);
            keys.push_back({ std::vector<llama_pos>(layout.n_f16), std::vector<llama_pos>(s.packed.size()) });
        }
    }

    uint32_t stream_of(int seq_id) const { return layout.n_stream == 1 ? 0 : seq_id; }

    void count(const llama_kv_mixed_stream & stream, const std::vector<llama_kv_mixed_pack> & packs) {
        for (const auto & p : packs) {
            for (uint32_t i : p.packed) {
                int seq_id = 0;
                while (!stream.packed.seq_has(i, seq_id)) {
                    seq_id++;
                }
                times[{ seq_id, stream.packed.pos_get(i) }]++;
                n_repacked++;
            }
        }
    }

    // false if there is no room
    bool append(llama_seq_id id) {
        llama_kv_mixed_planner           planner(layout, streams);
        auto &                           stream = streams[stream_of(id)];
        std::vector<llama_kv_mixed_pack> packs;
        std::vector<uint32_t>            idxs;
        std::vector<llama_pos>           pos;
        for (int i = 0; i < STEP; i++) {
            pos.push_back(end[id] + i);
        }
        if (!planner.add(stream_of(id), STEP, pos.data(), std::vector<int32_t>(STEP, 1).data(), std::vector<llama_seq_id *>(STEP, &id).data(), packs,
                         idxs)) {
            check(stream.n_used() + STEP > layout.n_cells, "no room, though there is some");
            return false;
        }
        count(stream, packs);
        keys[stream_of(id)].pack(packs);
        stream.pack(packs, stream_of(id));
        for (int i = 0; i < STEP; i++) {
            stream.add(idxs[i], pos[i], {}, 1, &id);
            keys[stream_of(id)].f16[idxs[i]] = pos[i];
            times[{ id, pos[i] }]            = 0;
        }
        keys[stream_of(id)].check_all(stream);
        end[id] += STEP;
        n_appended += STEP;
        return true;
    }

    void cut_end(int id, int n) {
        end[id] -= n;
        streams[stream_of(id)].seq_rm(id, end[id], ALL);
    }

    void cut_at_random(int id, int n) {
        auto &         stream = streams[stream_of(id)];
        const uint32_t wanted = std::max<int>(0, stream.n_used() - n);
        while (stream.n_used() > wanted) {
            const uint32_t cell = rng() % stream.packed.size(); // where there is a token
            const int      p0   = stream.packed.is_empty(cell) ? rng() % end[id] : stream.packed.pos_get(cell);
            stream.seq_rm(id, p0, p0 + 1 + rng() % 40);
        }
    }

    // small gaps at random, to which what comes behind is moved
    void cut_and_move(int id, int n) {
        while (n > 0) {
            const int gap = std::min<int>(n, 1 + rng() % 40);
            close_gap(id, gap, rng() % (end[id] - gap));
            n -= gap;
        }
    }

    void close_gap(int id, int n, int p0) {
        auto & stream = streams[stream_of(id)];
        stream.seq_rm(id, p0, p0 + n);
        stream.seq_add(id, p0 + n, ALL, -n);
        const auto plan = llama_kv_mixed_plan_shift(stream, true);
        keys[stream_of(id)].shift(plan);
        stream.tile_shift = plan.tile_shift;
        stream.f16.reset_shift();
        stream.packed.reset_shift();
        keys[stream_of(id)].check_all(stream);
        for (int pos = p0; pos < end[id]; pos++) {
            const auto it      = times.find({ id, pos + n });
            times[{ id, pos }] = it == times.end() ? 0 : it->second;
        }
        end[id] -= n;
    }

    void print(uint32_t n_used) const {
        int    most = 0;
        double sum  = 0;
        for (const auto & [_, n] : times) {
            most = std::max(most, n);
            sum += n;
        }
        printf("{\"cells\": %u, \"used\": %u, \"appended\": %zu, \"repacked\": %zu, \"most\": %d, \"mean\": %g}\n", layout.n_cells, n_used,
               n_appended, n_repacked, most, sum / times.size());
    }
};

// append tokens and remove some, sequence by sequence, until there is no room
static void fill(uint32_t n_cells, uint32_t n_seq, bool unified, int n_append, int n_remove, void (churned::*remove)(int, int)) {
    churned c(n_cells, n_seq, unified);
    for (uint32_t turn = 0;; turn++) {
        const int id = turn % n_seq;
        for (int n = 0; n < n_append; n += STEP) {
            if (!c.append(id)) {
                return c.print(c.streams[c.stream_of(id)].n_used());
            }
        }
        (c.*remove)(id, n_remove);
    }
}

int main() {
    fill(4096, 1, false, 600, 590, &churned::cut_end);
    fill(16384, 1, false, 600, 590, &churned::cut_end);
    fill(8192, 1, false, 900, 840, &churned::cut_end);
    fill(32768, 1, false, 1000, 900, &churned::cut_end);
    fill(16384, 4, true, 600, 590, &churned::cut_end);
    fill(12800, 1, false, 600, 500, &churned::cut_at_random); // 100 tiles
    fill(12800, 3, true, 600, 500, &churned::cut_at_random);
    fill(4096, 1, false, 600, 500, &churned::cut_and_move);
    fill(12800, 1, false, 600, 500, &churned::cut_and_move);
    fill(12800, 3, true, 600, 500, &churned::cut_and_move);
    return 0;
}
