import DistTrain
import Foundation
import Testing

/// The fixtures beside these tests; Fixtures/images/make_fixtures.py makes them.
func imageFixture(_ name: String, file: String = #filePath) throws -> [UInt8] {
    let folder = URL(fileURLWithPath: file).deletingLastPathComponent().appendingPathComponent(
        "Fixtures/images")
    return try [UInt8](Data(contentsOf: folder.appendingPathComponent(name)))
}

/// The error that `body` throws; records a failure if it throws none.
func imageError<T>(_ body: () throws -> T) -> ImageError? {
    let error = #expect(throws: ImageError.self) { _ = try body() }
    return error
}

/// The largest difference between two pictures' values.
func largestDifference(_ a: [UInt8], _ b: [UInt8]) -> Int {
    guard a.count == b.count else { return .max }
    return zip(a, b).map { abs(Int($0) - Int($1)) }.max() ?? 0
}

/// A folder that vanishes with the test.
final class TemporaryFolder {
    let path: String

    init() throws {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent(
            "disttrain-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Writes a file, and the folders above it, and returns its path.
    @discardableResult
    func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        let url = URL(fileURLWithPath: "\(path)/\(name)")
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(bytes).write(to: url)
        return url.path
    }

    /// Runs a program in the folder.
    func run(_ arguments: String...) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        process.currentDirectoryURL = URL(fileURLWithPath: path)
        try process.run()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0, "\(arguments)")
    }
}

/// A picture whose every pixel differs from its neighbours, told from others by its seed.
func patternImage(width: Int = 16, height: Int = 12, seed: Int = 0) -> Image {
    var image = Image(width: width, height: height, red: 0, green: 0, blue: 0)
    for y in 0..<height {
        for x in 0..<width {
            image[x, y] = (
                UInt8((x * 9 + seed * 40) & 255), UInt8((y * 13) & 255), UInt8((x * y + seed) & 255)
            )
        }
    }
    return image
}
