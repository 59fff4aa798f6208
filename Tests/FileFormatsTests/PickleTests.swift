import FileFormats
import Foundation
import Support
import Testing
import TestSupport

@Suite struct PickleTests {
    static let ordered = PickleGlobal("collections", "OrderedDict")

    static func read(_ bytes: [UInt8], limits: PickleLimits = PickleLimits()) throws -> Pickle {
        try Pickle(bytes, path: "x.pkl", permitted: PickledArray.globals.union([ordered]), limits: limits)
    }

    static func read(_ text: String) throws -> Pickle { try read(Array(text.utf8)) }

    static func fixture(_ name: String) throws -> PickleValue {
        try read(try readWholeFile(fixturePath("pickles/\(name).pkl"), limit: 1 << 20)).root
    }

    /// The line that reports why a pickle is refused.
    static func refusal(_ bytes: [UInt8], limits: PickleLimits = PickleLimits()) throws -> String {
        try #require(throws: PickleError.self) { try read(bytes, limits: limits) }.message
    }

    static func refusal(_ text: String) throws -> String { try refusal(Array(text.utf8)) }

    @Test(arguments: 0...5) func readsEveryPlainValue(_ version: Int) throws {
        let root = try Self.fixture("values_\(version)")
        func elements(_ key: String) throws -> [PickleValue] { try #require(root[key]?.elements) }
        #expect(root["none"]?.isNone == true)
        #expect(try elements("booleans").map(\.boolValue) == [true, false])
        let integers = [0, 255, 256, 65535, -1, -(1 << 31), 1 << 31, .min, .max]
        #expect(try elements("integers").map(\.intValue) == integers)
        #expect(root["long"]?.intValue == nil && root["long"]?.kind == "a whole number")
        #expect(try elements("floats").map(\.doubleValue) == [0, 1.5, -1e300, .infinity])
        #expect(try elements("texts").map(\.stringValue) == ["", "plain", "ünï\n\\u0041 '\"", "😀"])
        // Up to protocol 2, `bytes()` is a call without arguments.
        let bytes = try elements("bytes")
        #expect(bytes[0].withBytes { $0.count } ?? 0 == 0)
        #expect(bytes[1].withBytes { Array($0) } == Array("raw\0".utf8) + [0xFF, 0x0A])
        #expect(try elements("tuples").map { $0.elements?.count } == [0, 1, 2, 3, 4])
        let ordered = try #require(root["ordered"])
        #expect(ordered.object?.global == Self.ordered)
        #expect(ordered.entries?.map(\.key.stringValue) == ["b", "a"])
        #expect(ordered["a"]?.intValue == 2)
        #expect(try elements("set").map(\.intValue) == [7])
        let shared = try elements("shared")
        #expect(shared[0].isSame(as: shared[1]))
        let endless = try elements("endless")
        #expect(endless[1].elements?[1].elements?[0].intValue == 1)
    }

    @Test(arguments: 0...5) func readsArrays(_ version: Int) throws {
        let root = try Self.fixture("arrays_\(version)")
        let pixels = try PickledArray(try #require(root["data"]), name: "data")
        #expect(
            pixels.shape == [2, 12] && pixels.kind == "u" && pixels.itemSize == 1 && !pixels.isFortranOrder)
        #expect(pixels.bytes == (0..<24).map { UInt8($0 * 11) })
        let columns = try PickledArray(try #require(root["columns"]), name: "columns")
        #expect(
            columns.shape == [2, 3] && columns.kind == "f" && columns.itemSize == 4 && columns.isFortranOrder)
        #expect(columns.bytes[4..<8] == [0, 0, 0x40, 0x40])
        let big = try PickledArray(try #require(root["big"]), name: "big")
        #expect(big.kind == "i" && big.isBigEndian && big.bytes == [0, 1, 1, 0])
        #expect(root["labels"]?.elements?.map(\.intValue) == [3, 9])
    }

    @Test func readsABatchOfPython2() throws {
        let root = try Self.fixture("python2_batch_2")
        #expect(root["batch_label"]?.stringValue == "training batch 1 of 5")
        #expect(root["labels"]?.elements?.map(\.intValue) == [3, 9])
        #expect(root["filenames"]?.elements?.map(\.stringValue) == ["a.png", "b.png"])
        let data = try PickledArray(try #require(root["data"]), name: "data")
        #expect(data.shape == [2, 12] && data.bytes == (0..<24).map { UInt8($0 * 11) })
        let wrong = try #require(throws: PickleError.self) {
            try PickledArray(root["labels"]!, name: "labels")
        }
        #expect(wrong.message == "x.pkl: labels: is a list, expected a NumPy array")
    }

    @Test func readsEscapesOfPython2() throws {
        let root = try Self.read("(S'a\\x41\\102\\n\\\\\\'\\q'\nS\"\"\nI01\nL5L\nVa\\u00e9\\U0001f600\nt.")
            .root
        let values = try #require(root.elements)
        #expect(values[0].stringValue == "aAB\n\\'\\q")
        #expect(values[1].stringValue == "")
        #expect(values[2].boolValue == true)
        #expect(values[3].intValue == 5)
        #expect(values[4].stringValue == "aé😀")
    }

    @Test func refusesEveryOtherName() throws {
        for pickle in [
            "cos\nsystem\n(S'true'\ntR.", "(S'true'\nios\nsystem\n.", "(cos\nsystem\nS'true'\no.",
        ] {
            let error = try #require(throws: PickleError.self) { try Self.read(pickle) }
            #expect(error.refused == PickleGlobal("os", "system"))
            #expect(error.message.contains("'os.system'") && error.exitStatus == ExitStatus.refused)
        }
        let stack: [UInt8] =
            [0x80, 4, 0x8C, 2] + Array("os".utf8) + [0x8C, 6] + Array("system".utf8) + [0x93]
        #expect(try Self.refusal(stack + [0x2E]).contains("'os.system'"))
        // A permitted name under another module, and line ends in a name.
        #expect(try Self.refusal("cevil\nndarray\n.").contains("'evil.ndarray'"))
        #expect(try Self.refusal(Array("c".utf8) + [0xFF, 0x0A, 0x0A, 0x2E]).contains("not UTF-8"))
        let escaped = try Self.refusal([0x8C, 2, 0x6F, 0x0A, 0x8C, 1, 0x73, 0x93, 0x2E])
        #expect(!escaped.contains("\n"))
    }

    @Test(arguments: [
        ("", "truncated"), (".", "empty stack"), ("N", "truncated"), ("NN.", "left over"),
        ("(N.", "left over"),
        ("X\u{7F}\u{7F}\u{7F}\u{7F}a.", "truncated"), ("Sabc\n.", "quotes"), ("S'\n.", "quotes"),
        ("S'\\xZZ'\n.", "escape"), ("Vab\\uD800\n.", "character code"), ("Iabc\n.", "number"),
        ("Fabc\n.", "number"),
        ("h\u{5}.", "recalls value 5"), ("g-1\n.", "position"), ("t.", "no mark"), ("Na.", "empty stack"),
        ("NNa.", "appends to something"), ("]NNs.", "other than a dictionary"),
        ("}(Nu.", "key without a value"),
        ("NNR.", "other than a class"), ("cnumpy\nndarray\nNR.", "tuple"), ("NNb.", "state of no object"),
        ("(o.", "no class"), ("?.", "0x3f is not an opcode"), ("]2(aN.", "empty stack"),
    ]) func refusesBrokenPickles(_ pickle: String, _ expected: String) throws {
        let line = try Self.refusal(pickle)
        #expect(line.contains(expected), "\(line)")
    }

    @Test func refusesWhatIsNotSupported() throws {
        #expect(try Self.refusal([0x80, 6, 0x4E, 0x2E]).contains("protocol 6"))
        #expect(try Self.refusal([0x82, 1, 0x2E]).contains("extension"))
        #expect(try Self.refusal([0x97, 0x2E]).contains("outside the file"))
        #expect(try Self.refusal([0x95] + [UInt8](repeating: 0xFF, count: 8)).contains("length"))
        #expect(try Self.refusal([0x8E, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x2E]).contains("truncated"))
    }

    /// A chain of two million lists in one another, and a file that only repeats references.
    @Test func limitsMemoryAndDepth() throws {
        let depth = 1_000_000
        let lists = [UInt8](repeating: UInt8(ascii: "]"), count: depth)
        let deep = try Self.read(lists + [UInt8](repeating: UInt8(ascii: "a"), count: depth - 1) + [0x2E])
        #expect(deep.root.elements?.count == 1)
        let limits = PickleLimits(values: 1000, opcodes: 5000)
        #expect(try Self.refusal(lists + [0x2E], limits: limits).contains("more than 1000 values"))
        let repeated = [0x4E] + [UInt8](repeating: UInt8(ascii: "2"), count: depth)
        #expect(try Self.refusal(repeated, limits: limits).contains("more than 5000 opcodes"))
        // One string, converted to bytes again and again.
        let text: [UInt8] = [0x8C, 255] + [UInt8](repeating: 0x61, count: 255) + [0x71, 2, 0x30]
        let calls = [[UInt8]](repeating: [0x68, 1, 0x68, 2, 0x85, 0x52], count: 100).flatMap { $0 }
        let encode = Array("c_codecs\nencode\nq".utf8) + [1, 0x30]
        let root = try Self.read(encode + text + [0x28] + calls + Array("t.".utf8)).root
        let results = try #require(root.elements)
        #expect(results.count == 100 && results.allSatisfy { $0.isSame(as: results[0]) })
    }

    /// Every byte changed: an error in one line, or a value.
    @Test(arguments: ["values_0", "values_5", "arrays_2", "arrays_5", "python2_batch_2"])
    func refusesDamagedPickles(_ name: String) throws {
        let whole = try readWholeFile(fixturePath("pickles/\(name).pkl"), limit: 1 << 20)
        for index in 0..<whole.count {
            for mask in [1, 0x20, 0x80, 0xFF] as [UInt8] {
                var bytes = whole
                bytes[index] ^= mask
                do {
                    let root = try Self.read(bytes, limits: PickleLimits(values: 1000, opcodes: 2000)).root
                    for entry in root.entries ?? [] where entry.value.object != nil {
                        let array = try PickledArray(entry.value, name: "array")
                        #expect(array.shape.reduce(array.itemSize, *) == array.bytes.count)
                    }
                } catch {
                    #expect(error is PickleError && !"\(error)".contains("\n"))
                }
            }
        }
    }

    /// Names in a hostile file must not take minutes to compare.
    @Test func longRunsOfAccentsAreNoNames() throws {
        let accents = "a" + String(repeating: "\u{301}", count: 100)
        let text: [UInt8] = [0x8C, UInt8(accents.utf8.count)] + Array(accents.utf8)
        #expect(try Self.read(text + [0x2E]).root.stringValue == nil)
        #expect(try Self.refusal(text + text + [0x93, 0x2E]).contains("other than strings"))
    }
}
