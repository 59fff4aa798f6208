import Checkpointing
import Configuration
import FileFormats
import Foundation
import Testing
import TestSupport

/// Small YAML texts that expand to large trees.
@Suite struct YAMLLimitsTests {
    private func refusal(_ yaml: String) -> String? {
        do {
            _ = try Configuration(yaml: yaml, source: "a.yaml")
            return nil
        } catch {
            return error.description
        }
    }

    /// Nested levels, each with ten aliases of the previous one.
    private static func bomb(levels: Int, _ line: (String, String) -> String) -> String {
        var text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        for level in 1...levels {
            let aliases = Array(repeating: "*a\(level - 1)", count: 10).joined(separator: ", ")
            text += line("a\(level)", aliases)
        }
        return text
    }

    @Test("aliases that expand to billions of values are rejected at once", .timeLimit(.minutes(1)))
    func aliases() {
        let text = Self.bomb(levels: 12) { "\($0): &\($0) [\($1)]\n" }
        #expect(refusal(text)?.contains("expands to more than 100000 values") == true)
        #expect(refusal(text)?.hasPrefix("a.yaml:5: ") == true)
    }

    @Test("aliases in keys are refused before the keys are compared", .timeLimit(.minutes(1)))
    func keys() {
        // Four levels are below the limit on values; list keys are rejected regardless of their size.
        let text = Self.bomb(levels: 3) { "\($0): &\($0) [\($1)]\n" } + "? *a3\n: 1\n"
        #expect(refusal(text)?.contains("a key must be a word") == true)
        #expect(refusal("*a : 1\n")?.contains("undefined alias") == true)
    }

    @Test("depth, size and number of values are limited")
    func limits() {
        #expect(refusal(String(repeating: "[", count: 40))?.contains("nested deeper than 32 levels") == true)
        #expect(refusal(String(repeating: "- ", count: 5000) + "a")?.contains("nested deeper") == true)
        #expect(
            refusal("a: [" + String(repeating: "1,", count: 100_001) + "]")?.contains("100000 values") == true
        )
        #expect(
            refusal("# " + String(repeating: "x", count: 1 << 20))?.contains("expected at most 1048576")
                == true)
    }

    @Test("aliases of a common configuration are read")
    func commonAliases() throws {
        let text = "a: &a [1, 2]\nb: *a\nc: &c {d: *a}\ne: *c\n"
        // The error about unknown keys shows that the text passed the limits.
        #expect(refusal(text)?.contains("unknown") == true || refusal(text)?.contains("a.yaml:1") == true)
    }

    @Test("a run folder whose configuration is a bomb or a pipe has no name", .timeLimit(.minutes(1)))
    func runFolder() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("config.yaml")
        try "name: run\n".write(toFile: path, atomically: true, encoding: .utf8)
        #expect(RunFolder(scratch.path).runName == "run")
        try Self.bomb(levels: 12) { "\($0): &\($0) [\($1)]\n" }.write(
            toFile: path, atomically: true, encoding: .utf8)
        #expect(RunFolder(scratch.path).runName == nil)
        try FileManager.default.removeItem(atPath: path)
        mkfifo(path, 0o600)
        #expect(RunFolder(scratch.path).runName == nil)
        #expect(throws: ConfigError.self) { try Configuration.load(path: path) }
    }
}
