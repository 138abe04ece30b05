// Images that go through a vision encoder (libmtmd) into the mixed KV cache, against upstream's f16 cache. Prints one line of JSON per finding.
//
//   kv_vision MODEL SCENARIO K V mmproj=FILE [key=value ...]

#include "kv_driver.h"
#include "mtmd-helper.h"
#include "mtmd.h"

using mtmd_ptr   = std::unique_ptr<mtmd_context, decltype(&mtmd_free)>;
using chunks_ptr = std::unique_ptr<mtmd_input_chunks, decltype(&mtmd_input_chunks_free)>;
using bitmap_ptr = std::unique_ptr<mtmd_bitmap, decltype(&mtmd_bitmap_free)>;

static mtmd_ptr load_encoder(const llama_model * model) {
    mtmd_helper_log_set(on_log, nullptr);
    mtmd_context_params params = mtmd_context_params_default();
    params.use_gpu             = false;
    params.warmup              = false;
    params.n_threads           = 1;
    mtmd_ptr res(mtmd_init_from_file(options["mmproj"].c_str(), model, params), mtmd_free);
    check(res != nullptr, "no encoder");
    return res;
}

static bitmap_ptr random_bitmap(int width, int height, int seed) {
    std::mt19937               rng(seed);
    std::vector<unsigned char> data(3 * width * height);
    for (auto & x : data) {
        x = rng();
    }
    return bitmap_ptr(mtmd_bitmap_init(width, height, data.data()), mtmd_bitmap_free);
}

// text, an image, text, another image, and text
static chunks_ptr tokenize(const mtmd_context * encoder, int seed = 1) {
    const std::string words = "The cache holds the keys and values of every token that came before. A tile is wide. ";
    std::string       text  = words;
    for (int i = 0; i < 2; i++) {
        text += std::string(mtmd_default_marker()) + words + words;
    }
    const int             width   = option("width", 192);
    const int             height  = option("height", 160);
    const auto            one     = random_bitmap(width, height, seed);
    const auto            two     = random_bitmap(height, width, seed + 1);
    const mtmd_bitmap *   both[]  = { one.get(), two.get() };
    const mtmd_input_text in_text = { text.c_str(), text.size(), true, true };
    chunks_ptr            res(mtmd_input_chunks_init(), mtmd_input_chunks_free);
    check(mtmd_tokenize(encoder, res.get(), &in_text, both, 2) == 0, "tokenizing failed");
    return res;
}

// a part of an image, as it is decoded
struct part {
    std::vector<float>     embd;
    std::vector<llama_pos> pos; // four for each token
};

static int32_t record(const mtmd_helper_embd_batch * batch, void * parts) {
    check(batch->n_pos == 4, "the model has no positions of several parts");
    ((std::vector<part> *) parts)
        ->push_back({
            { batch->embd, batch->embd + (size_t) batch->n_tokens * batch->n_embd },
            { batch->pos,  batch->pos + (size_t) batch->n_tokens * batch->n_pos   }
    });
    return 0;
}

// decode a chunk as the tools do; the logits of text, and the parts of an image
static logits eval(mtmd_context * encoder, llama_context * ctx, const mtmd_input_chunk * chunk, llama_pos & pos, std::vector<part> & parts) {
    if (mtmd_input_chunk_get_type(chunk) != MTMD_INPUT_CHUNK_TYPE_TEXT) {
        check(mtmd_encode_chunk(encoder, chunk) == 0, "encoding failed");
        check(mtmd_helper_decode_image_chunk(encoder, ctx, chunk, mtmd_get_output_embd(encoder), pos, 0, option("batch", 100), &pos, record,
                                             &parts) == 0,
              "decoding an image failed");
        return {};
    }
    size_t       n      = 0;
    const auto * tokens = mtmd_input_chunk_get_tokens_text(chunk, &n);
    const logits res    = decode(ctx, { tokens, tokens + n }, pos, 0, true);
    check(!res.empty(), "decoding failed");
    pos += n;
    return res;
}

// the logits of each text, beside images of this seed
static std::vector<logits> logits_of_texts(mtmd_context * encoder, llama_context * ctx, int seed, int & n_image) {
    const auto          chunks = tokenize(encoder, seed);
    std::vector<logits> res;
    llama_pos           pos = 0;
    std::vector<part>   parts;
    for (size_t i = 0; i < mtmd_input_chunks_size(chunks.get()); i++) {
        const auto l = eval(encoder, ctx, mtmd_input_chunks_get(chunks.get(), i), pos, parts);
        if (!l.empty()) {
            res.push_back(l);
        }
    }
    n_image = 0;
    for (const auto & one : parts) {
        n_image += one.pos.size() / 4;
    }
    return res;
}

// The logits of each text are near those of f16; beside other images they are not. Upstream's flash attention adds up in f16 where queries are
// few, which loses more than 8 bits do.
static void scenario_logits(llama_model * model, ggml_type k, ggml_type v) {
    const auto encoder     = load_encoder(model);
    int        n_image     = 0;
    auto       params      = params_of(GGML_TYPE_F16, GGML_TYPE_F16);
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    const auto f16         = logits_of_texts(encoder.get(), new_context(model, params).get(), 1, n_image);
    const auto packed      = logits_of_texts(encoder.get(), new_context(model, k, v).get(), 1, n_image);
    const auto other       = logits_of_texts(encoder.get(), new_context(model, params).get(), 5, n_image);
    for (size_t i = 0; i < f16.size(); i++) {
        printf("{\"text\": %zu, \"image_tokens\": %d, \"nmse\": %g, \"nmse_other\": %g}\n", i, n_image, nmse(packed[i], f16[i]),
               nmse(other[i], f16[i]));
    }
}

static void decode_part(llama_context * ctx, const part & image) {
    const size_t                n = image.pos.size() / 4;
    std::vector<int32_t>        n_seq_id(n, 1);
    llama_seq_id                id = 0;
    std::vector<llama_seq_id *> seq_ids(n, &id);
    llama_batch                 batch = {};
    batch.n_tokens                    = n;
    batch.embd                        = const_cast<float *>(image.embd.data());
    batch.pos                         = const_cast<llama_pos *>(image.pos.data());
    batch.n_seq_id                    = n_seq_id.data();
    batch.seq_id                      = seq_ids.data();
    check(llama_decode(ctx, batch) == 0, "decoding a part of an image failed");
}

// a state saved in the middle of an image goes on as if nothing had happened
static void scenario_restore(llama_model * model, ggml_type k, ggml_type v) {
    const auto        encoder = load_encoder(model);
    const auto        chunks  = tokenize(encoder.get());
    const auto        ctx     = new_context(model, k, v);
    llama_pos         pos     = 0;
    std::vector<part> parts;
    const size_t      last = mtmd_input_chunks_size(chunks.get()) - 1;
    for (size_t i = 0; i + 1 < last; i++) {
        eval(encoder.get(), ctx.get(), mtmd_input_chunks_get(chunks.get(), i), pos, parts);
    }
    const auto        before = save(ctx.get(), true, 0);
    const auto *      text   = mtmd_input_chunks_get(chunks.get(), last);
    std::vector<part> image;
    eval(encoder.get(), ctx.get(), mtmd_input_chunks_get(chunks.get(), last - 1), pos, image);
    llama_pos    end      = pos;
    const logits expected = eval(encoder.get(), ctx.get(), text, end, parts);
    check(image.size() > 2, "the image is one part");

    for (size_t n = 1; n < image.size(); n++) { // parts before the state is saved
        for (bool whole : { false, true }) {
            const auto one = new_context(model, k, v);
            const auto two = new_context(model, k, v);
            check(restore(one.get(), true, 0, before), "a state was refused");
            for (size_t i = 0; i < n; i++) {
                decode_part(one.get(), image[i]);
            }
            const auto state = save(one.get(), whole, 0);
            check(restore(two.get(), whole, 0, state), "a state in the middle of an image was refused");
            check(save(two.get(), whole, 0) == state, "a restored state is not the same when saved again");
            for (size_t i = n; i < image.size(); i++) {
                decode_part(two.get(), image[i]);
            }
            end            = pos;
            const auto got = eval(encoder.get(), two.get(), text, end, parts);
            printf("{\"parts\": %zu, \"whole\": %d, \"same\": %d, \"nmse\": %g}\n", n, whole, same(got, expected), nmse(got, expected));
        }
    }
}

int main(int argc, char ** argv) {
    return run_scenario(argc, argv,
                        {
                            { "logits",  scenario_logits  },
                            { "restore", scenario_restore },
    });
}
