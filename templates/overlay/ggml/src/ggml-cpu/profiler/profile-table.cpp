// The profile as a table.

#include "profile-report.h"

static const char * const HEAD = "%-44s %9s %11s %7s %10s %8s %9s %7s\n";
static const char * const LINE = "%-44s %9llu %11.3f %6.1f%% %10.2f ";

static double ratio(double a, double b) {
    return b > 0 ? a / b : 0;
}

static void write_rate(FILE * file, const char * format, double rate) {
    if (rate > 0) {
        fprintf(file, format, rate);
    } else {
        fprintf(file, "%*s", format[1] - '0', "-");
    }
}

static void write_row(FILE * file, const profile_report & report, const profile_section & section, const profile_row & row) {
    const profile_sums & sums = row.sums;
    const double         ms   = report.ms(sums.time);
    fprintf(file, LINE, row.name.c_str(), (unsigned long long) sums.calls, ms, 100 * ratio((double) sums.time, (double) section.graphs.time),
            ratio(1e3 * ms, (double) sums.calls));
    write_rate(file, "%8.2f ", ratio((double) sums.bytes, 1e6 * ms));
    write_rate(file, "%9.2f ", ratio((double) sums.flops, 1e6 * ms));
    fprintf(file, " %6.1f%%\n", 100 * ratio((double) sums.all_waits, (double) sums.all_threads));
}

static void write_rows(FILE * file, const profile_report & report, const profile_section & section, const char * title,
                       const std::vector<profile_row> & rows) {
    fprintf(file, "\n");
    fprintf(file, HEAD, title, "calls", "ms", "share", "us/call", "GB/s", "GFLOP/s", "wait");
    for (const profile_row & row : rows) {
        write_row(file, report, section, row);
    }
    const uint64_t outside = section.graphs.time > section.all.time ? section.graphs.time - section.all.time : 0;
    fprintf(file, "%-44s %9s %11.3f %6.1f%%\n", "(start and end of graphs)", "", report.ms(outside),
            100 * ratio((double) outside, (double) section.graphs.time));
}

void write_table(FILE * file, const profile_report & report) {
    uint64_t in_graphs = 0;
    for (const profile_section & section : report.sections) {
        in_graphs += section.graphs.time;
    }
    fprintf(file,
            "%.3f ms in graphs, %.1f %% of the %.3f ms from the begin of the first to the end of the last; clock: %s\n"
            "ms, share: from a node's begin until all threads have passed the barrier behind it; wait: at that barrier, of the time of all threads\n",
            report.ms(in_graphs), 100 * ratio((double) in_graphs, (double) report.wall), report.ms(report.wall), report.clock);
    for (const profile_section & section : report.sections) {
        const graph_sums & graphs = section.graphs;
        const double       ms     = report.ms(graphs.time);
        fprintf(file, "\n%s: %llu graph(s) of %llu token(s) on %llu thread(s), %.3f ms", section.name, (unsigned long long) graphs.graphs,
                (unsigned long long) graphs.tokens, (unsigned long long) graphs.threads, ms);
        if (graphs.tokens > 0) {
            fprintf(file, ", %.3f ms per token", ms / (double) graphs.tokens);
        }
        fprintf(file, "\n");
        write_rows(file, report, section, "operation", section.operations);
        write_rows(file, report, section, "layer", section.layers);
    }
}
