#include "torch.h"

#include "reference.h"

#ifdef ALIGN_ATTN_TORCH

#    include <torch/torch.h>
#    include <torch/version.h>

// K or V of the whole sequence, repeated for the query heads, with one more zero key where there are sinks.
static torch::Tensor sequence(const align_case & c, const std::vector<float> & packed, const std::vector<float> & f16, int head_dim) {
    const auto    options = torch::TensorOptions().dtype(torch::kFloat32);
    torch::Tensor head    = torch::from_blob((void *) packed.data(), { c.n_batch, c.n_packed(), c.n_head_kv, head_dim }, options);
    torch::Tensor tail    = torch::from_blob((void *) f16.data(), { c.n_batch, c.n_f16, c.n_head_kv, head_dim }, options);
    torch::Tensor all     = torch::cat({ head, tail }, 1).to(torch::kFloat64).permute({ 0, 2, 1, 3 }).repeat_interleave(c.group, 1);
    return c.sinks ? torch::constant_pad_nd(all, { 0, 0, 0, 1 }) : all;
}

static torch::Tensor bias(const align_case & c, const case_data & data) {
    torch::Tensor mask = torch::zeros({ c.n_batch, c.n_head(), c.n_q, c.n_kv() }, torch::kFloat64);
    if (!data.mask.empty()) {
        const std::vector<int64_t> shape = { data.mask_batches, data.mask_heads, c.n_q, c.n_kv() };
        torch::Tensor              given = torch::from_blob((void *) data.mask.data(), shape, torch::kFloat32).to(torch::kFloat64);
        for (int64_t h = 0; h < c.n_head(); ++h) {
            mask.select(1, h).add_(given.select(1, h % data.mask_heads) * slope_of(c, h));
        }
    }
    if (!c.sinks) {
        return mask;
    }
    torch::Tensor sink = torch::from_blob((void *) data.sinks.data(), { 1, c.n_head(), 1, 1 }, torch::kFloat32).to(torch::kFloat64);
    return torch::cat({ mask, sink.expand({ c.n_batch, c.n_head(), c.n_q, 1 }) }, 3);
}

std::vector<double> run_torch(const align_case & c, const case_data & data) {
    if (c.softcap || c.n_kv() == 0) {
        return {};
    }
    torch::NoGradGuard no_grad;
    torch::Tensor      q = torch::from_blob((void *) data.q.data(), { c.n_batch, c.n_head(), c.n_q, c.dims.k }, torch::kFloat32).to(torch::kFloat64);
    torch::Tensor o = at::scaled_dot_product_attention(q, sequence(c, turned_keys(c, data), data.k, c.dims.k), sequence(c, data.vp, data.v, c.dims.v),
                                                       bias(c, data), 0.0, false, (double) c.scale());
    o               = o.permute({ 0, 2, 1, 3 }).contiguous();
    return std::vector<double>(o.data_ptr<double>(), o.data_ptr<double>() + o.numel());
}

std::string torch_version() {
    return TORCH_VERSION;
}

#else

std::vector<double> run_torch(const align_case & c, const case_data & data) {
    (void) c;
    (void) data;
    return {};
}

std::string torch_version() {
    return "";
}

#endif
