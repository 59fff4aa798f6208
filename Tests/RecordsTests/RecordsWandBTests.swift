import Foundation
import RecordProtocols
import Records
import Support
import Testing
import TestSupport

@Suite struct RecordsWandBTests {
    private let description = WandBRun.Description(
        name: "tiny", configuration: ["seed": 0, "train": ["steps": 4]], programVersion: "0.1.0",
        host: "node1")

    private func open(
        _ folder: String, resumedStep: Int? = nil, _ description: WandBRun.Description? = nil
    ) throws -> WandBRun {
        try WandBRun(
            in: folder, resumedStep: resumedStep, description ?? self.description, onProblem: { _ in },
            clock: { 1_234_567_890.5 })
    }

    /// Writes scalars at each step and a picture at even steps.
    private func fill(_ run: WandBRun, _ steps: ClosedRange<Int>) {
        for step in steps {
            run.append([("train/loss", 1 / Double(step)), ("train/none", .nan)], step: step)
            if step % 2 == 0 {
                run.append(picture: [UInt8(step), 2, 3], width: 4, height: 5, name: "samples", step: step)
            }
        }
        run.synchronize()
    }

    private func log(_ run: WandBRun) throws -> String {
        let name = try FileManager.default.contentsOfDirectory(atPath: run.path).first {
            $0.hasSuffix(".wandb")
        }
        return "\(run.path)/\(try #require(name))"
    }

    private func rows(_ records: [WBRecord]) -> [Int64] {
        records.compactMap { if case .history(let row) = $0.recordType { row.step.num } else { nil } }
    }

    private func pictures(_ run: WandBRun) -> [String] {
        let folder = "\(run.path)/files/media/images"
        return ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()
    }

    /// Checksums (CRC-32C) of files that DataStore of wandb 0.28.0 wrote from records of these sizes; byte i
    /// of a record is 7 i mod 251. Block boundaries fall between records, with 0 to 7 bytes left before them,
    /// and within records.
    @Test(arguments: [
        ([5], 19, "90f0662b"), ([32740, 2, 3], 32778, "d5b85f0a"), ([32741, 5, 100], 32875, "a58e7fe0"),
        ([32747, 4], 32779, "ad130aed"), ([32740, 7, 9], 32784, "3c06a9f4"),
        ([100000, 1, 70000, 32761, 32754, 40], 235654, "86abad76"), ([32754, 1], 32776, "cf932532"),
        ([32747, 0, 1], 32776, "39f528cf"),
    ])
    func recordsAreFramedAsWandbDoes(sizes: [Int], size: Int, checksum: String) throws {
        let records = sizes.map { count in (0..<count).map { UInt8($0 * 7 % 251) } }
        var bytes = WandBLogRecord.fileHeader
        for record in records { bytes += WandBLogRecord.frame(record, at: bytes.count) }
        #expect(bytes.count == size)
        #expect(CRC32C.of(bytes).text == checksum)

        let scratch = try ScratchFolder(in: "/dev/shm")
        try RecordFiles.write(bytes, to: scratch.file("log"))
        let file = try AppendedFile(path: scratch.file("log"), noun: "record") { _ in }
        var at = WandBLogRecord.fileHeader.count
        for record in records {
            let frame = try #require(try WandBLogRecord.read(file, at: at))
            #expect(frame.data == record)
            at = frame.end
        }
        #expect(at == size)
        #expect(try WandBLogRecord.read(file, at: at) == nil)
    }

    /// The examples of FIPS 180-4, and lengths around the block size.
    @Test(arguments: [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
        (
            String(repeating: "a", count: 1_000_000),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        ),
        (
            String(repeating: "a", count: 55),
            "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"
        ),
        (
            String(repeating: "a", count: 64),
            "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"
        ),
    ])
    func hashesAsTheStandardSays(text: String, expected: String) {
        #expect(SHA256.text(of: Array(text.utf8)) == expected)
    }

    @Test func recordsSayWhatWandbExpects() throws {
        let scratch = try ScratchFolder(in: "/dev/shm")
        let run = try open(scratch.file("wandb"))
        fill(run, 2...2)
        run.finish(exitStatus: 0)
        let (records, areAll) = try RecordFiles.wandb(try log(run))
        #expect(areAll)
        #expect(records.map(\.num) == Array(1...Int64(records.count)))
        guard case .run(let about) = records[1].recordType, case .exit(let exit) = records.last?.recordType,
            case .history(let row) = records[records.count - 2].recordType
        else {
            Issue.record("\(records)")
            return
        }
        #expect(run.path.hasSuffix("-\(about.runID)") && about.runID.utf8.count == 8)
        #expect(about.config.update.map(\.key) == ["seed", "train"])
        #expect(about.config.update.map(\.valueJson) == ["0", #"{"steps":4}"#])
        #expect(exit.exitCode == 0)
        // Scalars and picture form one row; NaN is left out.
        #expect(row.item.map(\.key) == ["train/loss", "samples", "_step", "_timestamp", "_runtime"])
        let name = try #require(pictures(run).first)
        #expect(try RecordFiles.bytes("\(run.path)/files/media/images/\(name)") == [2, 2, 3])
        let picture = try JSONValue(parsing: row.item[1].valueJson)
        #expect(picture["_type"] == "image-file" && picture["path"] == .string("media/images/\(name)"))
        #expect(picture["sha256"] == .string(SHA256.text(of: [2, 2, 3])) && picture["size"] == 3)
        let summary = try JSONValue(parsing: RecordFiles.bytes("\(run.path)/files/wandb-summary.json")[...])
        #expect(summary["train/loss"] == 0.5 && summary["_step"] == 2)
    }

    /// A crash may leave any prefix of the log.
    @Test func isCutBackWhereverItWasTorn() throws {
        let scratch = try ScratchFolder(in: "/dev/shm")
        let folder = scratch.file("wandb")
        let run = try open(folder)
        fill(run, 1...4)
        run.finish(exitStatus: 1)
        let path = try log(run)
        let whole = try RecordFiles.bytes(path)
        let complete = rows(try RecordFiles.wandb(path).records)
        #expect(complete == [1, 2, 3, 4])
        for length in 0...whole.count {
            try RecordFiles.write(whole.prefix(length), to: path)
            let before = rows(try RecordFiles.wandb(path).records).filter { $0 <= 2 }
            let resumed = try open(folder, resumedStep: 2)
            #expect(try log(resumed) == path, "one run stays one run")
            fill(resumed, 3...3)
            let (records, areAll) = try RecordFiles.wandb(path)
            #expect(areAll, "cut to \(length) bytes")
            #expect(rows(records) == before + [3], "cut to \(length) bytes")
            #expect(records.map(\.num) == Array(1...Int64(records.count)))
            #expect(records.filter { if case .run = $0.recordType { true } else { false } }.count == 1)
            #expect(!records.contains { if case .exit = $0.recordType { true } else { false } })
        }
        #expect(
            pictures(run).map { $0.split(separator: "_")[1] } == ["2"], "pictures of later steps are gone")
    }

    @Test func aResumeTellsOfAChangedConfigurationOnceAndKeepsThePicture() throws {
        let scratch = try ScratchFolder(in: "/dev/shm")
        let folder = scratch.file("wandb")
        let run = try open(folder)
        fill(run, 1...2)
        var changed = description
        changed.configuration["train"] = ["steps": 8]
        for _ in 0..<2 {
            let resumed = try open(folder, resumedStep: 2, changed)
            resumed.append(picture: [2, 2, 3], width: 4, height: 5, name: "samples", step: 2)
            resumed.synchronize()
        }
        fill(try open(folder, resumedStep: 2, changed), 3...3)
        let records = try RecordFiles.wandb(try log(run)).records
        let changes = records.compactMap {
            if case .config(let change) = $0.recordType { change.update.map(\.valueJson) } else { nil }
        }
        #expect(changes == [[#"{"steps":8}"#]])
        #expect(rows(records) == [1, 2, 3])
        _ = try open(folder, resumedStep: 3, changed)
        #expect(try RecordFiles.wandb(try log(run)).records.count == records.count)
        // A start from scratch creates a new run.
        let fresh = try open(folder)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder).count == 1)
        #expect(fresh.path != run.path)
    }
}
