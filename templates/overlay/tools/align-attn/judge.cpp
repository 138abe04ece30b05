#include "judge.h"

#include "bounds.h"
#include "torch.h"

#include <cstdio>

// upstream's f16 attention on the CPU accumulates in f16: this is the tolerance of test-backend-ops
static constexpr double MAX_NMSE_UPSTREAM = 5e-4;
static constexpr double MAX_NMSE_TORCH    = 1e-6;

std::string verdict::kernel() const {
    return c.n_tiles == 0 ? "f16" : kernel_k == kernel_v ? kernel_k : kernel_k + "+" + kernel_v;
}

namespace {

std::string format(const char * pattern, double a, double b) {
    char text[200];
    snprintf(text, sizeof(text), pattern, a, b);
    return text;
}

// Normalised mean squared error of a against b, over the elements that are finite in both; NaN when there are none.
template <typename A, typename B> double nmse(const std::vector<A> & a, const std::vector<B> & b) {
    double error = 0;
    double size  = 0;
    bool   any   = false;
    for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
        if (std::isfinite(a[i]) && std::isfinite(b[i])) {
            error += ((double) a[i] - (double) b[i]) * ((double) a[i] - (double) b[i]);
            size += (double) b[i] * (double) b[i];
            any = true;
        }
    }
    return !any ? NAN : error == 0 ? 0.0 : size == 0 ? (double) INFINITY : error / size;
}

std::string name_of_element(const align_case & c, size_t i) {
    const size_t d  = i % c.dims.v;
    const size_t h  = i / c.dims.v % c.n_head();
    const size_t iq = i / c.dims.v / c.n_head() % c.n_q;
    const size_t b  = i / c.dims.v / c.n_head() / c.n_q;
    char         text[100];
    snprintf(text, sizeof(text), "batch %zu, query %zu, head %zu, channel %zu", b, iq, h, d);
    return text;
}

// (a) element by element; also where NaN and Inf must be.
void judge_codes(verdict & v, const std::vector<float> & out, const reference & ref) {
    size_t worst  = 0;
    v.worst_ratio = -1;
    v.max_abs_err = 0;
    for (size_t i = 0; i < out.size(); ++i) {
        double ratio;
        if (std::isfinite(ref.out[i])) {
            const double error = std::fabs((double) out[i] - ref.out[i]);
            ratio              = error == 0 ? 0.0 : std::isfinite(out[i]) ? error / ref.tolerance[i] : (double) INFINITY;
            v.max_abs_err      = std::isnan(error) ? (double) INFINITY : std::max(v.max_abs_err, error);
        } else {
            ratio = std::isnan(ref.out[i]) ? (std::isnan(out[i]) ? 0.0 : (double) INFINITY) : (double) out[i] == ref.out[i] ? 0.0 : (double) INFINITY;
        }
        if (ratio > v.worst_ratio) {
            v.worst_ratio = ratio;
            worst         = i;
        }
    }
    v.tolerance  = ref.tolerance[worst];
    v.nmse_codes = nmse(out, ref.out);
    if (!(v.worst_ratio <= 1)) {
        char text[160];
        snprintf(text, sizeof(text), ": got %.9g, want %.9g, tolerance %.3g", (double) out[worst], ref.out[worst], v.tolerance);
        v.faults.push_back("codes: " + name_of_element(v.c, worst) + text);
    }
}

// The bound of (b): what the bits cost, for the share that packed keys have in the result, and what the kernel's rounding adds.
double bound_of(const align_case & c, const std::vector<float> & out, const reference & values, const reference & codes) {
    const distortion unit   = expected_distortion(c);
    double           packed = 0;
    double           kernel = 0;
    double           size   = 0;
    for (size_t i = 0; i < out.size(); ++i) {
        if (std::isfinite(values.out[i]) && std::isfinite(codes.out[i]) && std::isfinite(out[i])) {
            packed += unit.k * values.k_error[i] + unit.v * values.v_error[i];
            // packing shrinks a value by its share of lost variance: where values are keys, their means follow the scores, so that both shrink
            packed += c.is_latent ? 4 * unit.k * unit.k * values.out[i] * values.out[i] : 0.0;
            kernel += codes.noise[i];
            size += values.out[i] * values.out[i];
        }
    }
    return size == 0 ? 0.0 : (slack_of(c) * packed + 4 * kernel) / size + 1e-8;
}

// A row whose keys are all masked is zeros in the mixed op and NaN elsewhere: leave it out of the comparison.
void ignore_masked_rows(const align_case & c, const reference & ref, std::vector<double> & out) {
    for (size_t i = 0; i < out.size(); ++i) {
        out[i] = ref.seen[i / c.dims.v] ? out[i] : (double) NAN;
    }
}

kernel_kind kind_of(const std::string & name) {
    const std::string arithmetic = name.substr(0, name.find('-'));
    return arithmetic == "lut" ? kernel_kind::lut : arithmetic == "dot" ? kernel_kind::dot : kernel_kind::dot7;
}

} // namespace

verdict judge(device & dev, const align_case & c, const case_data & data, int n_threads, device_result & run) {
    verdict v;
    v.c        = c;
    v.kernel_k = dev.kernel_name(c.type_k());
    v.kernel_v = c.is_latent && c.k ? "dot" : dev.kernel_name(c.type_v()); // the transposed product has one arithmetic

    run      = dev.run_mixed(c, data, n_threads);
    v.faults = run.faults;
    if (run.out.empty()) {
        return v;
    }

    const packed_side k = decode(c, c.k, c.side_k(), run.kp);
    const packed_side w = decode(c, c.v, c.side_v(), run.vp);
    for (const std::string & wrong :
         { check_pack(c, true, k, data.kp), check_pack(c, false, w, data.vp), check_unpack(c, true, k, run.ku), check_unpack(c, false, w, run.vu) }) {
        if (!wrong.empty()) {
            v.faults.push_back(wrong);
        }
    }

    const reference codes = attention_on_codes(c, data, k, w, kind_of(v.kernel_k), kind_of(v.kernel_v));
    judge_codes(v, run.out, codes);

    const reference values = attention_on_values(c, data);
    v.nmse_values          = nmse(run.out, values.out);
    v.bound_values         = bound_of(c, run.out, values, codes);
    if (v.nmse_values > v.bound_values) {
        v.faults.push_back(format("values: error %.3g is over the bound %.3g", v.nmse_values, v.bound_values));
    }

    if (c.n_kv() > 0) {
        // values near f16's maximum would overflow upstream's sums, which are f16
        const bool               large    = c.data == data_kind::vmax || (c.is_latent && c.data == data_kind::kmax);
        const std::vector<float> upstream = dev.run_upstream(c, data, large ? 0x1p-14f : 1.0f);

        v.nmse_upstream = nmse(run.out, upstream);
        v.nmse_sanity   = nmse(upstream, values.out);
        if (v.nmse_upstream > v.bound_values + MAX_NMSE_UPSTREAM) {
            v.faults.push_back(format("upstream: error %.3g against it is over the bound %.3g", v.nmse_upstream, v.bound_values + MAX_NMSE_UPSTREAM));
        }
        if (v.nmse_sanity > MAX_NMSE_UPSTREAM) {
            v.faults.push_back(format("upstream: its own error %.3g is over %.3g, so that it proves nothing", v.nmse_sanity, MAX_NMSE_UPSTREAM));
        }
    }

    if (c.poison == poison_kind::none) {
        std::vector<double> torch = run_torch(c, data);
        if (!torch.empty()) {
            ignore_masked_rows(c, values, torch);
            v.nmse_torch = nmse(torch, values.out);
            if (v.nmse_torch > MAX_NMSE_TORCH) {
                v.faults.push_back(format("torch: its error %.3g is over %.3g", v.nmse_torch, MAX_NMSE_TORCH));
            }
        }
    }
    return v;
}
