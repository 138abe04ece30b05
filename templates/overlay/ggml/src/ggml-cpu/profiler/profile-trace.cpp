// The profile as a trace in the Trace Event Format, which Perfetto and chrome://tracing open, with the sums of the table beside it.

#include "profile-report.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>

namespace {

class trace_writer {
  public:
    trace_writer(FILE * file, const profile_report & report, uint64_t start) : file(file), report(report), start(start) {}

    void write(const profile_lanes & lanes) {
        fprintf(file, "{\n\"displayTimeUnit\": \"ns\",\n\"profile\": ");
        write_sums();
        fprintf(file, ",\n\"traceEvents\": [\n{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"tid\":0,\"args\":{\"name\":\"ggml-cpu\"}}");
        for (const auto & lane : lanes) {
            write_lane(*lane);
        }
        fprintf(file, "\n]\n}\n");
    }

  private:
    // whole nanoseconds, so that what follows on something begins where that ends
    int64_t ns(uint64_t tick) const { return tick < start ? 0 : std::llround((double) (tick - start) * report.ns_per_tick); }

    // only printable ASCII is left of a name
    void write_text(const char * text) {
        fputc('"', file);
        for (; *text; ++text) {
            fputc(*text < ' ' || *text > '~' || *text == '"' || *text == '\\' ? '?' : *text, file);
        }
        fputc('"', file);
    }

    // The counters of two processors may differ by a little: no slice begins before the one in front of it has ended.
    void write_slice(const char * name, const char * category, int lane, uint64_t begin, uint64_t end, int64_t & floor) {
        const int64_t from = std::max(ns(begin), floor);
        const int64_t to   = std::max(ns(end), from);
        floor              = to;
        fprintf(file, ",\n{\"name\":");
        write_text(name);
        fprintf(file, ",\"cat\":\"%s\",\"ph\":\"X\",\"ts\":%" PRId64 ".%03d,\"dur\":%" PRId64 ".%03d,\"pid\":1,\"tid\":%d", category, from / 1000,
                (int) (from % 1000), (to - from) / 1000, (int) ((to - from) % 1000), lane);
    }

    void write_graph(const graph_event & graph, int lane, int64_t & floor) {
        int64_t inside = floor;
        write_slice(kind_name(graph.kind), "graph", lane, graph.begin, graph.end, inside);
        fprintf(file, ",\"args\":{\"nodes\":%u,\"tokens\":%u,\"threads\":%u,\"aborted\":%s}}", graph.n_nodes, graph.n_tokens, graph.n_threads,
                graph.status == GGML_STATUS_SUCCESS ? "false" : "true");
    }

    void write_shape(const char * name, const uint32_t (&ne)[4]) {
        if (ne[0] > 0) {
            fprintf(file, ",\"%s\":\"%u x %u x %u x %u\"", name, ne[0], ne[1], ne[2], ne[3]);
        }
    }

    void write_node(const profile_event & event, int lane, int64_t & floor) {
        const std::string operation = operation_name(event.op, event.variant, event.n_fused, event.fused_op, event.type_a, event.type_b);
        write_slice(operation.c_str(), "node", lane, event.begin, event.end, floor);
        fprintf(file, ",\"args\":{\"name\":");
        write_text(event.name);
        fprintf(file, ",\"node\":%d,\"ith\":%d", event.node, event.ith);
        write_shape("shape", event.ne[0]);
        write_shape("src0", event.ne[1]);
        write_shape("src1", event.ne[2]);
        fprintf(file, ",\"bytes\":%" PRIu64 ",\"flops\":%" PRIu64 ",\"fused\":%d%s}}", event.bytes, event.flops, event.n_fused,
                event.is_cut ? ",\"aborted\":true" : "");
        write_slice("wait", "wait", lane, event.end, event.passed, floor);
        fprintf(file, "}");
    }

    // graphs and nodes in order of time: a graph's slice contains those of its nodes
    void write_lane(graph_profile_lane & lane) {
        const std::lock_guard<std::mutex> lock(lane.mutex);
        fprintf(file, ",\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"name\":\"thread %d\"}}", lane.index, lane.ith);
        fprintf(file, ",\n{\"name\":\"thread_sort_index\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"sort_index\":%d}}", lane.index, lane.index);
        int64_t floor = 0;
        size_t  graph = 0;
        for (size_t i = 0; i < lane.events.size(); ++i) {
            for (; graph < lane.graphs.size() && lane.graphs.at(graph).begin <= lane.events.at(i).begin; ++graph) {
                write_graph(lane.graphs.at(graph), lane.index, floor);
            }
            write_node(lane.events.at(i), lane.index, floor);
        }
        for (; graph < lane.graphs.size(); ++graph) {
            write_graph(lane.graphs.at(graph), lane.index, floor);
        }
    }

    void write_rows(const char * name, const std::vector<profile_row> & rows) {
        fprintf(file, ",\"%s\":[", name);
        for (size_t i = 0; i < rows.size(); ++i) {
            const profile_sums & sums = rows[i].sums;
            fprintf(file, "%s\n{\"name\":", i ? "," : "");
            write_text(rows[i].name.c_str());
            fprintf(file, ",\"calls\":%" PRIu64 ",\"ms\":%.6f,\"busy_ms\":%.6f,\"bytes\":%" PRIu64 ",\"flops\":%" PRIu64 ",\"wait\":%.6f}",
                    sums.calls, report.ms(sums.time), report.ms(sums.busy), sums.bytes, sums.flops,
                    sums.all_threads ? (double) sums.all_waits / (double) sums.all_threads : 0.0);
        }
        fprintf(file, "]");
    }

    void write_sums() {
        fprintf(file, "{\"schema\":1,\"clock\":\"%s\",\"wall_ms\":%.6f,\"events\":%" PRIu64 ",\"dropped\":%" PRIu64 ",\"sections\":[", report.clock,
                report.ms(report.wall), report.n_events, report.n_dropped);
        for (size_t i = 0; i < report.sections.size(); ++i) {
            const profile_section & section = report.sections[i];
            fprintf(file, "%s\n{\"kind\":\"%s\",\"graphs\":%" PRIu64 ",\"tokens\":%" PRIu64 ",\"threads\":%" PRIu64 ",\"ms\":%.6f", i ? "," : "",
                    section.name, section.graphs.graphs, section.graphs.tokens, section.graphs.threads, report.ms(section.graphs.time));
            write_rows("operations", section.operations);
            write_rows("layers", section.layers);
            fprintf(file, "}");
        }
        fprintf(file, "\n]}");
    }

    FILE *                 file;
    const profile_report & report;
    uint64_t               start;
};

} // namespace

void write_trace(FILE * file, const profile_report & report, const profile_lanes & lanes, const profile_clock & clock) {
    trace_writer(file, report, clock.start()).write(lanes);
}
