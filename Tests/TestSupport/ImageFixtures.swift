import Foundation
import Imaging

/// Reads a fixture from Tests/Fixtures/images, created by make_fixtures.py there.
package func imageFixture(_ name: String) throws -> [UInt8] {
    try [UInt8](Data(contentsOf: URL(fileURLWithPath: fixturePath("images/\(name)"))))
}

/// The error that `body` throws; nil if it throws none, or another.
package func imageError<T>(_ body: () throws -> T) -> ImageError? {
    do {
        _ = try body()
        return nil
    } catch {
        return error as? ImageError
    }
}

/// The largest difference between the values of two images.
package func largestDifference(_ a: [UInt8], _ b: [UInt8]) -> Int {
    guard a.count == b.count else { return .max }
    return zip(a, b).map { abs(Int($0) - Int($1)) }.max() ?? 0
}

/// An image in which each pixel differs from its neighbors; different for each seed.
package func patternImage(width: Int = 16, height: Int = 12, seed: Int = 0) -> Image {
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
