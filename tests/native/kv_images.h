// Made-up images for models with M-RoPE: embeddings whose tokens share a position and differ in x and y.

#pragma once

#include "kv_driver.h"

struct image_part {
    std::vector<std::pair<int, int>> cells; // x, y
    std::vector<float>               embd;
};

// an image in parts: the lower half comes first, so that its tokens are in the cache and must not be seen, then the upper one
static std::vector<image_part> random_image(int width, int height, int n_embd, int seed) {
    std::mt19937                    rng(seed);
    std::normal_distribution<float> gauss(0.0f, 0.5f);
    std::vector<image_part>         res;
    for (int first : { height / 2, 0 }) {
        image_part part;
        for (int i = 0; i < width * height / 2; i++) {
            part.cells.emplace_back(i % width, first + i / width);
        }
        std::shuffle(part.cells.begin(), part.cells.end(), rng);
        part.embd.resize(part.cells.size() * n_embd);
        for (float & x : part.embd) {
            x = gauss(rng);
        }
        res.push_back(part);
    }
    return res;
}

// the logits of all tokens of a part of an image
static logits decode_image(llama_context * ctx, const image_part & part, int pos, int seq_id = 0) {
    const size_t              n = part.cells.size();
    std::vector<llama_pos>    positions(4 * n);
    std::vector<int32_t>      n_seq_id(n, 1);
    std::vector<llama_seq_id> ids(n, seq_id);
    std::vector<int8_t>       wanted(n, 1);

    std::vector<llama_seq_id *> seq_ids;
    for (size_t i = 0; i < n; i++) {
        positions[i]         = pos;
        positions[n + i]     = pos + part.cells[i].second;
        positions[2 * n + i] = pos + part.cells[i].first;
        seq_ids.push_back(&ids[i]);
    }
    llama_batch batch = {};
    batch.n_tokens    = n;
    batch.embd        = const_cast<float *>(part.embd.data());
    batch.pos         = positions.data();
    batch.n_seq_id    = n_seq_id.data();
    batch.seq_id      = seq_ids.data();
    batch.logits      = wanted.data();
    check(llama_decode(ctx, batch) == 0, "decoding an image failed");
    const float * data = llama_get_logits(ctx);
    return logits(data, data + n * n_vocab(llama_get_model(ctx)));
}

// text, an image, and text again: the logits of each, as far as they are from those of f16
static void scenario_images(llama_model * model, ggml_type k, ggml_type v) {
    const int  width  = 24;
    const int  height = option("height", 20);
    const int  n      = 150;
    const auto image  = random_image(width, height, llama_model_n_embd_inp(model), 5);

    std::vector<logits> found[2];
    for (bool packed : { false, true }) {
        auto ctx = packed ? new_context(model, k, v) : new_context(model, GGML_TYPE_F16, GGML_TYPE_F16);
        int  pos = 0;
        for (int turn = 0; turn < 2; turn++) {
            found[packed].push_back(decode(ctx.get(), random_tokens(n, 10 + turn, n_vocab(model)), pos, 0, true));
            pos += n;
            for (const auto & part : image) {
                found[packed].push_back(decode_image(ctx.get(), part, pos));
            }
            pos += std::max(width, height);
        }
        found[packed].push_back(decode(ctx.get(), random_tokens(n, 12, n_vocab(model)), pos, 0, true));
    }
    for (size_t i = 0; i < found[0].size(); i++) {
        check(!found[0][i].empty() && !found[1][i].empty(), "decoding failed");
        printf("{\"part\": %zu, \"nmse\": %g}\n", i, nmse(found[1][i], found[0][i]));
    }
}
