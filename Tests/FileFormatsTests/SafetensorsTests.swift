import FileFormats
import Foundation
import Testing
import TestSupport

extension ScratchFolder {
    /// A safetensors file with this header and this number of data bytes.
    func write(header: String, dataCount: Int, name: String = "x.safetensors") throws -> String {
        var bytes = Data(withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) })
        bytes.append(contentsOf: header.utf8)
        bytes.append(Data(count: dataCount))
        try bytes.write(to: URL(fileURLWithPath: file(name)))
        return file(name)
    }
}

@Suite struct SafetensorsReadingTests {
    static let fixture = fixturePath("safetensors/types.safetensors")

    @Test func readsEveryTypeOfTheOfficialLibrary() throws {
        let file = try SafetensorsFile(path: Self.fixture)
        let values: [Float] = [0, -0.0, 1, -2.5, 1 / 3, 65504, 6e-8, 3.0e38, .infinity, -.infinity]
        #expect(try file.floats(of: "f32") == values)
        #expect(try file.floats(of: "f32")[1].sign == .minus)
        #expect(try file.floats(of: "f64") == values)
        #expect(try file.floats(of: "f16") == values[..<7].map { Float(Float16($0)) })
        let bf16 = try file.floats(of: "bf16")
        #expect(bf16[4] == 0.333984375)
        #expect(bf16[8] == .infinity)
        #expect(try file.integers(of: "i64") == [-(1 << 40), 0, 1 << 40])
        #expect(try file.integers(of: "i32") == [-5, 7])
        #expect(try file.integers(of: "u8") == [0, 255])
        #expect(try file.integers(of: "bool") == [1, 0, 1])
        #expect(try file.floats(of: "scalar") == [42])
        #expect(try file.info(of: "scalar").shape == [])
        #expect(try file.floats(of: "empty") == [])
        #expect(try file.info(of: "empty").shape == [0, 3])
        #expect(file.metadata == ["format": "pt", "note": "ünï"])
        #expect(file.names.count == 11)
        try file.prefetch()
        try file.prefetch("matrix")
    }

    @Test func readsRowsOfTheFirstDimension() throws {
        let file = try SafetensorsFile(path: Self.fixture)
        #expect(try file.info(of: "matrix").rowCount == 6)
        #expect(try file.floats(of: "matrix", rows: 1..<3) == (6..<18).map(Float.init))
        #expect(try file.floats(of: "matrix", rows: 4..<4) == [])
        var row = [Float](repeating: -1, count: 6)
        try row.withUnsafeMutableBufferPointer { try file.copyFloats(of: "matrix", rows: 3..<4, into: $0) }
        #expect(row == (18..<24).map(Float.init))
        #expect(throws: SafetensorsError.self) { try file.floats(of: "matrix", rows: 3..<5) }
        #expect(throws: SafetensorsError.self) { try file.floats(of: "scalar", rows: 0..<1) }
    }

    @Test func wrongUseNamesTheTensor() throws {
        let file = try SafetensorsFile(path: Self.fixture)
        let missing = try #require(throws: SafetensorsError.self) { try file.floats(of: "matrx") }
        #expect(missing.kind == .missing)
        #expect(missing.description.contains("did you mean 'matrix'?"))
        #expect(throws: SafetensorsError.self) { try file.floats(of: "i64") }
        #expect(throws: SafetensorsError.self) { try file.integers(of: "f32") }
        var short = [Float](repeating: 0, count: 5)
        #expect(throws: SafetensorsError.self) {
            try short.withUnsafeMutableBufferPointer { try file.copyFloats(of: "matrix", into: $0) }
        }
        let shape = try #require(throws: SafetensorsError.self) {
            try file.expectShape([4, 6], of: "matrix")
        }
        #expect(shape.description.contains("F32 [4, 3, 2]: expected shape [4, 6]"))
    }

    @Test func missingFileAndFolderAreNamed() throws {
        let scratch = try ScratchFolder()
        let missing = try #require(throws: SafetensorsError.self) {
            try SafetensorsFile(path: scratch.file("no"))
        }
        #expect(missing.description == "\(scratch.file("no")): cannot be opened: No such file or directory")
        #expect(throws: SafetensorsError.self) { try SafetensorsFile(path: scratch.path) }
        #expect(throws: SafetensorsError.self) { try SafetensorsFile(path: "/dev/zero") }
    }

    @Test(arguments: [
        // Invalid descriptions of one fp32 tensor "a" with two elements; 8 bytes of data follow.
        (
            #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[0],"data_offsets":[8,8]}}"#,
            "twice"
        ),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,16]}}"#, "needs 8 bytes, data_offsets give 16"),
        (#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, "truncated?"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, "the tensors end at byte 4"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, "gap"),
        (
            #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            "overlaps"
        ),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, "is not a range"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}"#, "is not a range"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}"#, "two whole numbers"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8.0]}}"#, "two whole numbers"),
        (#"{"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}"#, "'F31' is not known"),
        (#"{"a":{"shape":[2],"data_offsets":[0,8]}}"#, "has no dtype"),
        (#"{"a":{"dtype":"F32","data_offsets":[0,8]}}"#, "has no shape"),
        (#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, "a dimension is -2"),
        (#"{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,8]}}"#, "too large"),
        (#"{"a":{"dtype":"F32","shape":[0,4611686018427387904,8],"data_offsets":[0,0]}}"#, "too large"),
        (#"{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}}"#, "a dimension is"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1]}}"#, "unknown key 'strides'"),
        (#"{"a":[1]}"#, "expected an object"),
        (#"[]"#, "header is a list"),
        (
            #"{"__metadata__":{"x":1},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            "expected a string"
        ),
        (#"{"a":{"dtype":"F32","shape":[[[[[[2]]]]]],"data_offsets":[0,8]}}"#, "nested deeper"),
        (#"{"a":"#, "not valid JSON"),
        ("", "not valid JSON"),
    ])
    func hostileHeadersAreRefused(header: String, hint: String) throws {
        let scratch = try ScratchFolder()
        let path = try scratch.write(header: header, dataCount: 8)
        let error = try #require(throws: SafetensorsError.self) { try SafetensorsFile(path: path) }
        #expect(error.description.contains(hint), "\(error)")
        #expect(error.description.hasPrefix(path))
        #expect(!error.description.contains("\n"))
    }

    @Test func everyTruncationIsRefused() throws {
        let scratch = try ScratchFolder()
        let whole = try Data(contentsOf: URL(fileURLWithPath: Self.fixture))
        let path = scratch.file("cut.safetensors")
        for length in 0..<whole.count {
            try whole.prefix(length).write(to: URL(fileURLWithPath: path))
            #expect(throws: SafetensorsError.self, "cut to \(length) bytes") {
                try SafetensorsFile(path: path)
            }
        }
    }

    @Test(arguments: [UInt64.max, UInt64(Int.max), 1 << 40, 100_000_001, 99])
    func impossibleHeaderLengthsAreRefused(length: UInt64) throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("x.safetensors")
        let bytes = withUnsafeBytes(of: length.littleEndian) { Array($0) } + Array("{}".utf8)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let error = try #require(throws: SafetensorsError.self) { try SafetensorsFile(path: path) }
        #expect(error.kind == .header)
    }

    @Test func damagedBytesNeverCrash() throws {
        let scratch = try ScratchFolder()
        let whole = try Data(contentsOf: URL(fileURLWithPath: Self.fixture))
        let headerEnd =
            8 + Int(whole.prefix(2).enumerated().reduce(0) { $0 + Int($1.element) << (8 * $1.offset) })
        let path = scratch.file("damaged.safetensors")
        var refused = 0
        for position in 0..<headerEnd {
            for byte in [UInt8(0x22), 0x39] {
                var damaged = whole
                damaged[position] = byte
                try damaged.write(to: URL(fileURLWithPath: path))
                do {
                    let file = try SafetensorsFile(path: path)
                    for name in file.names { try file.withBytes(of: name) { _ = $0.reduce(UInt8(0), ^) } }
                } catch is SafetensorsError {
                    refused += 1
                }
            }
        }
        #expect(refused > headerEnd / 2)
    }
}
