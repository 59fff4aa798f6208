import Foundation
import Planning

/// Formats a plan as a table.
struct PlanTable {
    let plan: TrainingPlan
    /// The sources of the network, compute and disk parameters.
    let network, computing, disk: String
    let isWeak: Bool

    var text: String {
        let (job, network) = (plan.job, plan.network)
        let scaling = isWeak ? "weak scaling" : "strong scaling"
        var lines = [
            "\(job.name): \(job.parameters) parameters, \(job.precision), gradients in \(job.gradients), sharding "
                + "\(job.sharding), \(scaling)",
            "compute    \(computing)",
            "network    \(fixed(network.bitsPerSecond / 1e9, 3)) Gbit/s, \(fixed(network.latencySeconds * 1e6, 0)) µs, "
                + "\(fixed(network.drivingSecondsPerByte * 1e9, 2)) ns of processor time per byte (\(self.network))",
            "",
            TextTable.row(Self.head, Self.widths),
        ]
        lines += plan.rows.map { TextTable.row(cells($0), Self.widths) }
        lines += [
            "", "time of each phase of a step in s (predicted)",
            TextTable.row(Self.partHead, Self.partWidths),
        ]
        lines += plan.rows.map { TextTable.row(partCells($0), Self.partWidths) }
        lines += [
            "", "memory per rank in MiB (computed; other: measured)",
            TextTable.row(Self.memoryHead, Self.memoryWidths),
        ]
        lines += plan.rows.map { TextTable.row(memoryCells($0), Self.memoryWidths) }
        lines += [
            "",
            "checkpoint size \(fixed(Double(plan.checkpointBytes) / 1e6, 0)) MB; at "
                + "\(fixed(plan.diskBytesPerSecond / 1e6, 0)) MB/s (\(disk)) it is written in "
                + "\(fixed(plan.saveSeconds, 2)) s, while training continues",
        ]
        if let slow = plan.rows.first(where: {
            plan.saveSeconds > Double(job.checkpointEvery) * $0.stepSeconds
        }),
            job.checkpointEvery > 0
        {
            lines.append(
                "warning: on \(slow.hosts) hosts this is longer than the \(job.checkpointEvery) steps between two "
                    + "checkpoints; raise train.checkpoint_every")
        }
        return lines.joined(separator: "\n")
    }

    private static let head = [
        "hosts", "ranks", "batch", "per rank", "step, s", "images/s", "speed-up", "efficiency", "comm.",
        "hours",
        "stall, s",
    ]
    private static let widths = [5, 7, 8, 10, 10, 11, 10, 12, 8, 9, 10]

    private func cells(_ row: PlanRow) -> [String] {
        [
            "\(row.hosts)", "\(row.ranks)", "\(row.batchSize)", "\(row.imagesPerRank)",
            fixed(row.stepSeconds, 3),
            fixed(row.imagesPerSecond, 1), fixed(row.speedUp, 2), "\(fixed(100 * row.efficiency, 0)) %",
            "\(fixed(100 * row.communicationShare, 0)) %", fixed(row.hours, 1), fixed(row.stallSeconds, 3),
        ]
    }

    private static let partHead = [
        "hosts", "forward, backward", "driving", "waiting for gradients", "agreement", "optimizer",
        "gathering weights",
    ]
    private static let partWidths = [5, 19, 9, 23, 11, 11, 19]

    private func partCells(_ row: PlanRow) -> [String] {
        let parts = row.parts
        return ["\(row.hosts)"]
            + [
                parts.passSeconds, parts.drivingSeconds, parts.reductionSeconds, parts.agreementSeconds,
                parts.updateSeconds, parts.gatherSeconds,
            ].map { fixed($0, 3) }
    }

    private static let memoryHead = [
        "hosts", "weights", "gradients", "state", "exchange", "snapshot", "activations", "other", "total",
    ]
    private static let memoryWidths = [5, 9, 11, 7, 10, 10, 13, 7, 8]

    private func memoryCells(_ row: PlanRow) -> [String] {
        let memory = row.memory
        return ["\(row.hosts)"]
            + [
                memory.weightBytes, memory.gradientBytes, memory.stateBytes, memory.exchangeBytes,
                memory.snapshotBytes, memory.activationBytes, memory.otherBytes, memory.totalBytes,
            ].map { fixed(Double($0) / 1_048_576, 0) }
    }
}
