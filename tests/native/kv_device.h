// A device to offload layers to: this machine, behind ggml's RPC backend. For builds that have it.

#pragma once

#include "ggml-backend.h"
#include "ggml-rpc.h"

#include <chrono>
#include <string>
#include <thread>

// false if it does not answer; leave the program by _Exit then, past the device's thread
static bool start_device(int port) {
    const std::string  endpoint = "127.0.0.1:" + std::to_string(port);
    ggml_backend_reg_t rpc      = ggml_backend_reg_by_name("RPC");
    auto *             serve    = (decltype(&ggml_backend_rpc_start_server)) ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_start_server");
    auto *             add      = (decltype(&ggml_backend_rpc_add_server)) ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_add_server");
    ggml_backend_dev_t cpu      = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    std::thread([=]() mutable { serve(endpoint.c_str(), nullptr, 1, 1, &cpu); }).detach();
    ggml_backend_reg_t device = nullptr;
    for (int i = 0; i < 600 && !device; i++) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        device = add(endpoint.c_str());
    }
    if (device) {
        ggml_backend_register(device);
    }
    return device != nullptr;
}
