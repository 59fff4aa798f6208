import Checkpointing
import Communication
import Configuration
import Datasets
import FileFormats
import Foundation
import Support
import TensorCore

/// What all ranks of a job must have in common, compared at startup: a rank with another learning rate, program or
/// dataset would otherwise train something else without any message.
struct StartAgreement {
    private struct Fact: Codable {
        var name: String
        var value: String
    }

    private var facts: [Fact] = []

    /// Compares the program, the resolved configuration, and the options of the command that decide where a run starts
    /// and what it writes. Collective.
    static func compareCommands(
        _ configuration: ConfigNode, output: String, resume: Resume, allowedChanges: AllowedChanges,
        _ communicator: Communicator
    ) throws {
        var agreement = StartAgreement()
        agreement.add("the program", "\(Program.version) (build \(Program.checksum(of: "/proc/self/exe")))")
        agreement.add("--output", output)
        agreement.add("--resume", resume.description)
        agreement.add("--resume-before", resume.before.map(String.init))
        agreement.add("--allow-change", allowedChanges.description)
        for (key, node) in ConfigurationChanges.leaves(configuration) {
            agreement.add(key, YAMLNode.text(node).trimmingCharacters(in: .newlines))
        }
        try agreement.check(communicator)
    }

    /// Compares what is trained on. Collective.
    static func compareData(
        _ fingerprint: String, firstStage: String?, _ communicator: Communicator
    ) throws {
        var agreement = StartAgreement()
        agreement.add("data.fingerprint", fingerprint)
        agreement.add("first_stage.fingerprint", firstStage)
        try agreement.check(communicator)
    }

    /// - Parameters:
    ///   - name: as users know it: a configuration key, an option, or words such as "data.fingerprint".
    ///   - value: what this rank has for it; nil where it has nothing.
    private mutating func add(_ name: String, _ value: String?) {
        facts.append(Fact(name: name, value: value ?? "none"))
    }

    /// Compares all facts over the ranks. Collective.
    ///
    /// - Throws: `RunError`, the same on every rank, naming what differs, the values and the ranks.
    private func check(_ communicator: Communicator) throws {
        let digest = UInt64(contentHash(facts.map { "\($0.name)=\($0.value)" }), radix: 16) ?? 0
        if try communicator.allEqual(digest) { return }
        let differences = Self.differences(try communicator.allGather(facts))
        let shown = differences.prefix(4).joined(separator: "; ")
        let more = differences.count > 4 ? "; and \(differences.count - 4) more" : ""
        throw RunError(
            "the ranks do not agree: \(shown)\(more); start every rank with the same program, configuration and options, "
                + "and with paths on a file system that all hosts share")
    }

    /// "optimizer.learning_rate is 0.001 on rank 0, 1e-06 on ranks 1-3".
    private static func differences(_ everyone: [[Fact]]) -> [String] {
        var names: [String] = []
        var ranks: [String: [String: [Int]]] = [:]
        var order: [String: [String]] = [:]
        for (rank, facts) in everyone.enumerated() {
            for fact in facts {
                if ranks[fact.name] == nil { names.append(fact.name) }
                if ranks[fact.name]?[fact.value] == nil { order[fact.name, default: []].append(fact.value) }
                ranks[fact.name, default: [:]][fact.value, default: []].append(rank)
            }
        }
        return names.compactMap { name in
            var groups = (order[name] ?? []).map { (value: $0, ranks: ranks[name]?[$0] ?? []) }
            let absent = Set(everyone.indices).subtracting(groups.flatMap(\.ranks))
            if !absent.isEmpty { groups.append(("not given", absent.sorted())) }
            guard groups.count > 1 else { return nil }
            let parts = groups.prefix(4).map { "\($0.value) on \(words(for: $0.ranks))" }
            return "\(name) is \(parts.joined(separator: ", "))"
        }
    }

    /// "rank 3", or "ranks 0-3, 7".
    private static func words(for ranks: [Int]) -> String {
        var runs: [ClosedRange<Int>] = []
        for rank in ranks {
            if let last = runs.last, last.upperBound + 1 == rank {
                runs[runs.count - 1] = last.lowerBound...rank
            } else {
                runs.append(rank...rank)
            }
        }
        let texts = runs.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }
        return (ranks.count == 1 ? "rank " : "ranks ") + texts.joined(separator: ", ")
    }
}

/// Gives every rank the initial weights of rank 0 where they are not the same already: kernels of different processors
/// round differently. Collective.
func agreeOnInitialWeights(_ store: ParameterStore, _ communicator: Communicator) throws {
    if try communicator.allEqual(UInt64(store.contentHash, radix: 16) ?? 0) { return }
    if communicator.isRoot {
        printLine("Note: the ranks' processors compute different initial weights; those of rank 0 are used")
    }
    try communicator.broadcast(
        UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(start: store.values, count: store.count)),
        root: 0)
    store.valuesChanged()
}
