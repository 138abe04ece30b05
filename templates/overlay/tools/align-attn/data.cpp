#include "data.h"

#include "rng.h"

#include <algorithm>
#include <cmath>

static float to_f16(float x) {
    return ggml_fp16_to_fp32(ggml_fp32_to_fp16(x));
}

static bool is_outlier(int64_t channel) {
    return channel % 32 == 5;
}

// How large K, V or Q is at a channel: together they keep the scores near the unit Gaussian, or below it.
float k_size(data_kind kind, int64_t channel) {
    switch (kind) {
        case data_kind::outlier:
            return is_outlier(channel) ? 16.0f : 1.0f;
        case data_kind::tiny:
            return 0x1p-17f;
        case data_kind::kmax:
            return 0x1p+14f;
        default:
            return 1.0f;
    }
}

static float k_mean(data_kind kind, int64_t channel) {
    return kind == data_kind::biased && is_outlier(channel) ? 16.0f : 0.0f;
}

static float v_size(data_kind kind, int64_t channel) {
    switch (kind) {
        case data_kind::outlier:
            return is_outlier(channel) ? 16.0f : 1.0f;
        case data_kind::tiny:
            return 0x1p-17f;
        case data_kind::vmax:
            return 0x1p+14f;
        default:
            return 1.0f;
    }
}

float q_size(data_kind kind, int64_t channel) {
    switch (kind) {
        case data_kind::outlier:
            return is_outlier(channel) ? 0x1p-5f : 0.5f;
        case data_kind::tiny:
            return 0x1p+13f;
        case data_kind::kmax:
            return 0x1p-14f;
        default:
            return 1.0f;
    }
}

static float clamp_large(float x) {
    return std::min(std::max(x, -6e4f), 6e4f);
}

static void fill_kv(const align_case & c, rng & random, case_data & d) {
    const int64_t n_embd_k = c.side_k().n_embd();
    const int64_t n_embd_v = c.side_v().n_embd();
    const bool    no_k     = c.k && !c.k->has_offset; // without an offset only zeros have no spread
    const bool    no_v     = c.v && !c.v->has_offset;
    for (int64_t b = 0; b < c.n_batch; ++b) {
        std::vector<float> v_const(n_embd_v);
        for (float & x : v_const) {
            x = to_f16(random.gauss());
        }
        for (int64_t t = 0; t < c.n_kv(); ++t) {
            const bool  packed  = t < c.n_packed();
            const bool  f16     = !packed || !c.src_f32;
            const float k_const = to_f16(random.gauss());
            for (int64_t i = 0; i < std::max(n_embd_k, n_embd_v); ++i) {
                if (i < n_embd_k) {
                    const float k = c.data == data_kind::constant ? k_const * !(packed && no_k) :
                                                                    clamp_large(random.gauss() * k_size(c.data, i) + k_mean(c.data, i));
                    (packed ? d.kp : d.k).push_back(f16 ? to_f16(k) : k);
                }
                if (i < n_embd_v) {
                    const float v = c.data == data_kind::constant ? v_const[i] * !(packed && no_v) : clamp_large(random.gauss() * v_size(c.data, i));
                    (packed ? d.vp : d.v).push_back(f16 ? to_f16(v) : v);
                }
            }
        }
    }
}

// Plants the poison at two channels of one token of the last batch: in the last tile, or in the f16 segment.
static void fill_poison(const align_case & c, rng & random, case_data & d) {
    if (c.poison == poison_kind::none) {
        return;
    }
    using p = poison_kind;

    const p       kind   = c.poison;
    const bool    f16    = kind >= p::nan_k_f16;
    const bool    in_v   = kind == p::nan_v || kind == p::inf_v || kind == p::nan_v_f16 || kind == p::inf_v_f16;
    const bool    is_inf = kind == p::inf_k || kind == p::inf_v || kind == p::inf_k_f16 || kind == p::inf_v_f16;
    const float   bad    = kind == p::over_k ? 7e4f : is_inf ? INFINITY : NAN;
    const int64_t n      = f16 ? c.n_f16 : c.n_packed();
    const int64_t token  = f16 ? random.below((uint32_t) n) : n - TILE + random.below(TILE);

    const uint32_t       n_embd = (in_v ? c.side_v() : c.side_k()).n_embd();
    std::vector<float> & where  = f16 ? (in_v ? d.v : d.k) : (in_v ? d.vp : d.kp);
    float *              row    = where.data() + ((c.n_batch - 1) * n + token) * n_embd;
    row[random.below(n_embd)]   = bad;
    row[random.below(n_embd)]   = -bad;
    d.poison_token              = f16 ? c.n_packed() + token : token;
}

// At most one +-1 for each nibble of the K type; which depth of the nibble follows from the row.
static void fill_onehot_q(const align_case & c, rng & random, case_data & d) {
    const int per_nibble = std::max(1, 4 / c.k->bits);
    for (int64_t h = 0; h < c.n_head(); ++h) {
        for (int64_t i = 0; i < c.n_q; ++i) {
            const bool    weights = c.n_q >= 256 ? i >= c.n_q / 2 : i % 2 == 1; // this row looks at V: all scores are 0
            const int64_t which   = h % c.group + i / TILE + (c.n_q < 256 ? i : 0);
            for (int64_t x = 0; x < c.dims.k; ++x) {
                const float sign = random.below(2) == 0 ? -1.0f : 1.0f;
                d.q.push_back(!weights && x % per_nibble == (which + x / per_nibble) % per_nibble ? sign : 0.0f);
            }
        }
    }
}

static bool onehot_visible(const align_case & c, int64_t i, int64_t t) {
    if (t >= c.n_packed()) {
        return true;
    }
    const int per_nibble = std::max(1, 4 / c.v->bits);
    if (c.n_q >= 256 ? i < c.n_q / 2 : i % 2 == 0) {
        return t == (c.n_q >= 256 ? i % c.n_packed() : (i * 37 + 5) % c.n_packed());
    }
    return t % per_nibble == (i + t / per_nibble) % per_nibble;
}

static bool visible(const align_case & c, rng & random, int64_t i, int64_t t) {
    const bool    packed = t < c.n_packed();
    const int64_t hole   = random.below(10);
    if (c.data == data_kind::onehot) {
        return onehot_visible(c, i, t);
    }
    switch (c.mask) {
        case mask_kind::none:
            return true;
        case mask_kind::causal:
            return t <= (c.n_q <= c.n_kv() ? c.n_kv() - c.n_q + i : (i + 1) * c.n_kv() / c.n_q - 1);
        case mask_kind::holes:
            return hole >= 3 && t / TILE % 5 != 3;
        case mask_kind::rows:
            return i % 3 == 0 ? false : i % 6 == 1 ? packed : i % 6 == 2 ? !packed : hole >= 1;
    }
    return true;
}

static void fill_mask(const align_case & c, rng & random, case_data & d) {
    const bool needed = c.mask != mask_kind::none || c.poison_masked || c.data == data_kind::onehot;
    if (!needed) {
        return;
    }
    if (c.mask_heads) {
        d.mask_heads   = c.n_head();
        d.mask_batches = c.n_batch;
    }
    for (int64_t bh = 0; bh < d.mask_heads * d.mask_batches; ++bh) {
        for (int64_t i = 0; i < c.n_q; ++i) {
            for (int64_t t = 0; t < c.n_kv(); ++t) {
                const bool  seen = visible(c, random, i, t) && !(c.poison_masked && t == d.poison_token);
                const float away = (float) std::abs(c.n_kv() - c.n_q + i - t);
                const float more = c.bias ? 4.0f * random.gauss() : 0.0f;
                d.mask.push_back(!seen ? -INFINITY : to_f16(more - (c.alibi ? away * 0.0625f : 0.0f)));
            }
        }
    }
}

// A set of queries is q with its channels moved around by 32 for each step, which keeps the channels of outliers, and with its sign changed after
// each second one: turning keys back is exact, and the first three sets differ at every head size.
static int64_t turned_channel(const align_case & c, int shift, int64_t channel) {
    return (channel + 32 * shift) % c.dims.k;
}

static float turned_sign(int shift) {
    return shift % 4 >= 2 ? -1.0f : 1.0f;
}

static void fill_shifts(const align_case & c, case_data & d) {
    for (int s = 1; s <= c.n_shift; ++s) {
        for (size_t i = 0; i < d.q.size(); ++i) {
            const int64_t channel = i % c.dims.k;
            d.q_shifted.push_back(turned_sign(s) * d.q[i - channel + turned_channel(c, s, channel)]);
        }
    }
    for (int64_t i = 0; c.n_shift > 0 && i < c.n_batch * c.n_tiles; ++i) {
        d.tile_shift.push_back((int) ((i + 1) % (c.n_shift + 1)));
    }
}

std::vector<float> turned_keys(const align_case & c, const case_data & data) {
    std::vector<float> keys = data.kp;
    for (size_t i = 0; i < keys.size() && c.k && c.n_shift > 0; ++i) {
        const int64_t channel = i % c.dims.k;
        const int     shift   = data.tile_shift[i / c.side_k().n_embd() / TILE];

        keys[i - channel + turned_channel(c, shift, channel)] = turned_sign(shift) * data.kp[i];
    }
    return keys;
}

// the values that lie in keys
static std::vector<float> first_channels(const align_case & c, const std::vector<float> & keys) {
    std::vector<float> values;
    for (size_t head = 0; head < keys.size(); head += c.dims.k) {
        values.insert(values.end(), keys.begin() + head, keys.begin() + head + c.dims.v);
    }
    return values;
}

case_data make_data(const align_case & c) {
    rng       random(c.id);
    case_data d;
    fill_kv(c, random, d);
    fill_poison(c, random, d);
    if (c.is_latent) {
        d.v  = first_channels(c, d.k);
        d.vp = first_channels(c, d.kp);
    }
    for (int64_t b = 0; b < c.n_batch; ++b) {
        if (c.data == data_kind::onehot) {
            fill_onehot_q(c, random, d);
            continue;
        }
        for (int64_t i = 0; i < c.n_head() * c.n_q; ++i) {
            for (int64_t x = 0; x < c.dims.k; ++x) {
                d.q.push_back(random.gauss() * q_size(c.data, x));
            }
        }
    }
    fill_shifts(c, d);
    fill_mask(c, random, d);
    if (c.sinks) {
        for (int64_t h = 0; h < c.n_head(); ++h) {
            d.sinks.push_back(c.data == data_kind::onehot ? 0.0f : random.gauss() + 1.0f);
        }
    }
    return d;
}
