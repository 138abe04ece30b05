// A libFuzzer target on the loader of states of the mixed KV cache.
//
// The first bytes of an input choose a cache and one of its saved states; the others damage it: words and bytes are overwritten, parts cut out, doubled and
// swapped. The checksum is corrected in most cases, so that the code behind it is reached. Beside what the sanitizers detect, this is checked:
//
//   - a state that is refused leaves the cache as it was, to the last bit;
//   - a state that is taken can be saved, and then taken again by a cache like it;
//   - after either, tokens can be decoded, and sequences copied and removed.

#include "ggml-backend.h"
#include "gguf.h"
#include "llama-kv-mixed-state.h"
#include "llama-memory.h"
#include "llama-qlutattn.h"
#include "llama.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using bytes = std::vector<uint8_t>;

[[noreturn]] static void fail(const char * what) {
    fprintf(stderr, "fuzz_state: %s\n", what);
    abort();
}

// bytes that choose, zeros when they run out
struct choices {
    const uint8_t * data;
    size_t          size;

    uint8_t byte() { return size > 0 ? (size--, *data++) : 0; }

    uint32_t word() {
        uint32_t res = byte();
        res          = res << 8 | byte();
        res          = res << 8 | byte();
        return res << 8 | byte();
    }

    size_t below(size_t n) { return n > 0 ? word() % n : 0; }
};

class write_bytes : public llama_io_write_i {
  public:
    bytes data;

    void write(const void * src, size_t size) override { data.insert(data.end(), (const uint8_t *) src, (const uint8_t *) src + size); }

    void write_tensor(ggml_tensor * tensor, size_t offset, size_t size) override {
        data.resize(data.size() + size);
        ggml_backend_tensor_get(tensor, data.data() + data.size() - size, offset, size);
    }

    size_t n_bytes() override { return data.size(); }
};

// Reads bytes. With forge, the checksum of a mixed cache, which is its first value of eight bytes, is replaced by the one that the reader expects.
// The state of a hybrid memory has the block of the recurrent layers before it, with two such values, its size and its own checksum.
class read_bytes : public llama_io_read_i {
  public:
    read_bytes(const bytes & data, bool forge, bool is_hybrid) : data(data), forge(forge), n_before(is_hybrid ? 2 : 0) {}

    void read(void * dst, size_t size) override {
        memcpy(dst, take(size), size);
        if (size == sizeof(sum) && n_before > 0) {
            n_before--;
            sum = 0;
            return;
        }
        if (forge && size == sizeof(sum)) {
            memcpy(dst, &sum, size);
            forge = false;
        }
        sum = llama_kv_mixed_checksum(sum, dst, size);
    }

    void read_tensor(ggml_tensor * tensor, size_t offset, size_t size) override { ggml_backend_tensor_set(tensor, take(size), offset, size); }

    size_t n_bytes() override { return at; }

  private:
    const bytes & data;
    bool          forge;
    int           n_before; // values of eight bytes that are left alone
    uint64_t      sum = 0;
    size_t        at  = 0;

    const uint8_t * take(size_t size) {
        if (size > data.size() - at) {
            throw std::runtime_error("the state ends");
        }
        at += size;
        return data.data() + at - size;
    }
};

//
// the caches
//

static constexpr int N_VOCAB = 32;
static constexpr int N_SEQ   = 2;

using model_ptr   = std::unique_ptr<llama_model, decltype(&llama_model_free)>;
using context_ptr = std::unique_ptr<llama_context, decltype(&llama_free)>;

static void fill(ggml_tensor * tensor, void *) {
    std::mt19937       random(std::hash<std::string>()(tensor->name));
    std::vector<float> data(ggml_nelements(tensor));
    for (float & x : data) {
        x = (random() % 2001 - 1000.0f) / 2000.0f;
    }
    ggml_backend_tensor_set(tensor, data.data(), 0, ggml_nbytes(tensor));
}

static model_ptr make_model(const std::string & arch) {
    gguf_context * meta = gguf_init_empty();
    const auto     u32  = [&](const std::string & key, uint32_t value) {
        gguf_set_val_u32(meta, (arch + "." + key).c_str(), value);
    };
    gguf_set_val_str(meta, "general.architecture", arch.c_str());
    gguf_set_val_str(meta, "tokenizer.ggml.model", "no_vocab");
    gguf_set_val_f32(meta, (arch + ".attention.layer_norm_rms_epsilon").c_str(), 1e-5f);
    u32("vocab_size", N_VOCAB);
    u32("context_length", 4096);
    u32("embedding_length", arch == "lfm2" ? 128 : 32); // its queries are as long
    u32("feed_forward_length", 32);
    u32("block_count", arch == "llama" ? 1 : 2);
    u32("attention.head_count", 1);
    u32("attention.head_count_kv", 1);
    if (arch == "lfm2") {
        const int32_t n_head_kv[] = { 0, 1 }; // the first layer is recurrent
        gguf_set_arr_data(meta, "lfm2.attention.head_count_kv", GGUF_TYPE_INT32, n_head_kv, 2);
        u32("shortconv.l_cache", 3);
    }
    u32("attention.key_length", 128);
    u32("attention.value_length", 128);
    u32("rope.dimension_count", 128);
    if (arch == "gemma3") {
        u32("attention.sliding_window", 32);
        u32("attention.sliding_window_pattern", 2);
    }
    model_ptr res(llama_model_init_from_user(meta, fill, nullptr, llama_model_default_params()), llama_model_free);
    gguf_free(meta);
    if (!res) {
        fail("no model");
    }
    return res;
}

static int decode(llama_context * ctx, llama_seq_id seq_id, llama_pos pos, int n) {
    llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens    = n;
    for (int i = 0; i < n; i++) {
        batch.token[i]     = (int64_t) (pos + i) * 7 % N_VOCAB;
        batch.pos[i]       = pos + i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = seq_id;
        batch.logits[i]    = i + 1 == n;
    }
    const int res = llama_decode(ctx, batch);
    llama_batch_free(batch);
    return res;
}

// a context with something in it, and what its memory looks like as a whole and by sequence
struct subject {
    context_ptr        ctx;
    llama_memory_i *   memory;
    bool               is_hybrid;
    std::vector<bytes> states; // of sequences 0, 1, .., then the whole

    subject(llama_model * model, ggml_type type_k, ggml_type type_v, bool unified, int window = 16) :
        ctx(nullptr, llama_free), is_hybrid(llama_model_is_hybrid(model)) {
        llama_context_params params = llama_context_default_params();
        params.n_ctx                = 1024 * N_SEQ;
        params.n_ubatch             = 64;
        params.n_seq_max            = N_SEQ;
        params.n_threads            = 1;
        params.n_threads_batch      = 1;
        params.type_k               = type_k;
        params.type_v               = type_v;
        params.kv_unified           = unified;
        llama_qlutattn_set_kv_window(window);
        llama_qlutattn_set_kv_sink(4);
        ctx.reset(llama_init_from_model(model, params));
        if (!ctx) {
            fail("no context");
        }
        memory = (llama_memory_i *) llama_get_memory(ctx.get());
        if (decode(ctx.get(), 0, 0, 300) != 0 || decode(ctx.get(), 1, 0, 200) != 0) {
            fail("decoding failed");
        }
        memory->seq_rm(0, 60, 70); // holes, in a tile and in f16
        memory->seq_rm(0, 290, 292);
        if (unified) {
            memory->seq_cp(1, 0, 150, 180);
        }
        for (llama_seq_id seq_id = 0; seq_id <= N_SEQ; seq_id++) {
            states.push_back(save(seq_id < N_SEQ ? seq_id : -1));
        }
    }

    bytes save(llama_seq_id seq_id) const {
        write_bytes out;
        memory->state_write(out, seq_id);
        return out.data;
    }

    // Sequences of a hybrid memory can share a recurrent state; one that is put back gets a copy.
    bool is_unchanged() const {
        if (!is_hybrid) {
            return save(-1) == states.back();
        }
        bool res = true;
        for (llama_seq_id seq_id = 0; seq_id < N_SEQ; seq_id++) {
            res = res && save(seq_id) == states[seq_id];
        }
        return res;
    }

    bool load(const bytes & data, llama_seq_id seq_id, bool forge) const {
        read_bytes in(data, forge, is_hybrid);
        try {
            memory->state_read(in, seq_id);
        } catch (const std::exception &) {
            return false; // as the C API answers
        }
        return true;
    }
};

static std::vector<model_ptr> & models() {
    static std::vector<model_ptr> res;
    return res;
}

static std::vector<subject> & subjects() {
    static std::vector<subject> res;
    return res;
}

extern "C" int LLVMFuzzerInitialize(int *, char ***) {
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    models().push_back(make_model("llama"));
    models().push_back(make_model("gemma3"));
    models().push_back(make_model("lfm2"));
    llama_model * llama = models()[0].get();
    llama_model * gemma = models()[1].get();
    llama_model * lfm   = models()[2].get();
    subjects().emplace_back(llama, GGML_TYPE_QLUTATTN_K4_128x128, GGML_TYPE_QLUTATTN_V4_128x128, false);
    subjects().emplace_back(llama, GGML_TYPE_QLUTATTN_K2_128x128, GGML_TYPE_QLUTATTN_V1_128x128, true);
    subjects().emplace_back(llama, GGML_TYPE_F16, GGML_TYPE_QLUTATTN_V4_128x128, false);
    subjects().emplace_back(llama, GGML_TYPE_QLUTATTN_K4_128x128, GGML_TYPE_F16, true);
    // these take the states of the first one, and it theirs, only converted
    subjects().emplace_back(llama, GGML_TYPE_QLUTATTN_K4_128x128, GGML_TYPE_QLUTATTN_V4_128x128, false, 250);
    subjects().emplace_back(llama, GGML_TYPE_QLUTATTN_K4_128x128, GGML_TYPE_QLUTATTN_V4_128x128, false, 4000);
    subjects().emplace_back(gemma, GGML_TYPE_QLUTATTN_K4_128x128, GGML_TYPE_QLUTATTN_V4_128x128, false);
    subjects().emplace_back(lfm, GGML_TYPE_QLUTATTN_K4_128x128, GGML_TYPE_QLUTATTN_V4_128x128, false);
    subjects().emplace_back(lfm, GGML_TYPE_QLUTATTN_K2_128x128, GGML_TYPE_QLUTATTN_V2_128x128, true);
    return 0;
}

// the block of the recurrent layers, before the state of the mixed cache: magic, version, size, data, checksum
static size_t size_of_block(const bytes & state) {
    uint64_t size;
    memcpy(&size, &state[8], sizeof(size));
    return 8 + sizeof(size) + size + sizeof(uint64_t);
}

// a place in a state, more often in what describes the data than in the data
static size_t choose_place(choices & in, size_t size) {
    static constexpr size_t HEAD     = 64;
    static constexpr size_t CELLS    = 4096;
    const size_t            limits[] = { HEAD, HEAD, CELLS, size };
    const size_t            limit    = std::min(limits[in.byte() % 4], size);
    const size_t            res      = in.below(limit);
    return in.byte() % 4 ? res & ~(size_t) 3 : res;
}

static uint32_t choose_value(choices & in, uint32_t old) {
    switch (in.byte() % 8) {
        case 0:
            return 0;
        case 1:
            return UINT32_MAX;
        case 2:
            return INT32_MAX;
        case 3:
            return old + 1;
        case 4:
            return old - 1;
        case 5:
            return 1u << in.byte() % 32;
        case 6:
            return in.byte();
        default:
            return in.word();
    }
}

static void damage(choices & in, bytes & state) {
    for (int n = in.byte() % 12; n > 0 && !state.empty(); n--) {
        const size_t at   = choose_place(in, state.size());
        const size_t left = state.size() - at;
        const size_t some = in.below(std::min<size_t>(left, 2048)) & ~(size_t) 3;
        switch (in.byte() % 8) {
            case 0:
                state[at] ^= 1 << in.byte() % 8;
                break;
            case 1:
                state.resize(at);
                break;
            case 2:
                state.erase(state.begin() + at, state.begin() + at + some);
                break;
            case 3:
                {
                    const bytes copy(state.begin() + at, state.begin() + at + some);
                    state.insert(state.begin() + choose_place(in, state.size()), copy.begin(), copy.end());
                    break;
                }
            case 4:
                for (size_t i = 0; i < std::min<size_t>(left, 64); i++) {
                    state[at + i] = in.byte();
                }
                break;
            default:
                if (left >= sizeof(uint32_t)) {
                    uint32_t value;
                    memcpy(&value, &state[at], sizeof(value));
                    value = choose_value(in, value);
                    memcpy(&state[at], &value, sizeof(value));
                }
                break;
        }
    }
}

// what a tool may do next; it may be refused
static void use(choices & in, const subject & s) {
    for (int n = in.byte() % 4; n > 0; n--) {
        const llama_seq_id seq_id = in.byte() % N_SEQ;
        const llama_pos    p0     = in.word() % 400 - 1;
        switch (in.byte() % 5) {
            case 0:
                s.memory->seq_rm(seq_id, p0, -1);
                break;
            case 1:
                s.memory->seq_rm(seq_id, p0, p0 + in.byte());
                break;
            case 2:
                s.memory->seq_cp(seq_id, (seq_id + 1) % N_SEQ, -1, -1);
                break;
            case 3:
                s.memory->seq_keep(seq_id);
                break;
            default:
                break;
        }
        const llama_pos last = s.memory->seq_pos_max(seq_id);
        if (last < INT32_MAX - 512) {
            decode(s.ctx.get(), seq_id, last + 1, 1 + in.byte() % 100);
        }
    }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    choices            in      = { data, size };
    const subject &    s       = subjects()[in.byte() % subjects().size()];
    const size_t       which   = in.byte() % s.states.size();
    const bool         forge   = in.byte() % 8 != 0;
    const bool         whole   = which == N_SEQ;
    const llama_seq_id seq_id  = whole ? -1 : in.byte() % N_SEQ;
    const subject &    foreign = subjects()[in.byte() % subjects().size()];
    const subject &    from    = in.byte() % 8 ? s : foreign;

    bytes        state = from.states[which];
    const size_t start = from.is_hybrid && in.byte() % 8 ? size_of_block(state) : 0; // mostly the mixed cache's part
    bytes        part(state.begin() + start, state.end());
    damage(in, part);
    state.resize(start);
    state.insert(state.end(), part.begin(), part.end());

    if (s.load(state, seq_id, forge)) {
        const bytes again = s.save(seq_id);
        if (!s.load(again, seq_id, false) || s.save(seq_id) != again) {
            fail("a state that was taken is not the same when saved and loaded again");
        }
    } else if (!s.is_unchanged()) {
        fail("a state that was refused changed the cache");
    }
    use(in, s);

    s.memory->clear(false);
    if (!s.load(s.states.back(), -1, false) || s.save(-1) != s.states.back()) {
        fail("the first state is not taken any more");
    }
    return 0;
}
