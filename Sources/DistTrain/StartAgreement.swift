import Checkpointing
import Communication
import Configuration
import Datasets
import FileFormats
import Foundation
import Support
import TensorCore

/// Values that must be identical on all ranks of a job, compared at startup: a rank with a different learning rate,
/// program or dataset would otherwise silently train a different model.
struct StartAgreement {
    private struct Fact: Codable {
        var name: String
        var value: String
    }

    private var facts: [Fact] = []

    /// Compares the program, the resolved configuration, and the command-line options that determine where a run
    /// starts and where it writes. Collective.
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

    /// Compares the training data and the first stage. Collective.
    static func compareData(
        _ fingerprint: String, firstStage: String?, _ communicator: Communicator
    ) throws {
        var agreement = StartAgreement()
        agreement.add("data.fingerprint", fingerprint)
        agreement.add("first_stage.fingerprint", firstStage)
        try agreement.check(communicator)
    }

    /// - Parameters:
    ///   - name: the name in the error message: a configuration key, an option, or a name such as "data.fingerprint".
    ///   - value: this rank's value; nil if it has none.
    private mutating func add(_ name: String, _ value: String?) {
        facts.append(Fact(name: name, value: value ?? "none"))
    }

    /// Compares all facts over the ranks. Collective.
    ///
    /// - Throws: the same `RunError` on every rank, with the names that differ, their values and ranks.
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

/// Broadcasts the initial weights of rank 0 if they differ between ranks, because kernels on different processors
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
