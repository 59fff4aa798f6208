import Datasets
import Foundation
import Imaging
import Testing
import TestSupport

@Suite struct PicturesDrawingTests {
    @Test func aFaceDependsOnSeedAndIndexAlone() {
        let faces = SyntheticFaces(seed: 7)
        #expect(faces.draw(12, size: 64) == SyntheticFaces(seed: 7).draw(12, size: 64))
        #expect(faces.draw(12, size: 64) != faces.draw(13, size: 64))
        #expect(faces.draw(12, size: 64) != SyntheticFaces(seed: 8).draw(12, size: 64))
    }

    /// A change of the images for a seed requires a new ``SyntheticFaces/version``, which changes the
    /// fingerprint of datasets.
    @Test func version1DrawsWhatItDrew() {
        #expect(SyntheticFaces.version == 1)
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for index in 0..<48 {
            for byte in SyntheticFaces(seed: 0).draw(index, size: 32).pixels {
                hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3
            }
        }
        #expect(hash == 0xFAC6_1E70_B885_7471)
    }

    /// The content does not depend on the size: a large image scaled down is close to the small one.
    @Test func aFaceIsTheSameAtAnySize() {
        let faces = SyntheticFaces(seed: 3)
        for index in 0..<16 {
            let small = faces.draw(index, size: 64)
            let large = faces.draw(index, size: 256).resized(width: 64, height: 64, filter: .area)
            let total = zip(small.pixels, large.pixels).reduce(0) { $0 + abs(Int($1.0) - Int($1.1)) }
            #expect(Double(total) / Double(small.pixels.count) < 2, "face \(index)")
        }
    }

    /// The center of the image is skin, and differs from the corners, which are background.
    @Test func aFaceStandsInTheMiddle() {
        let faces = SyntheticFaces(seed: 5)
        for index in 0..<64 {
            let image = faces.draw(index, size: 64)
            let cheek = image[22, 42]
            #expect(cheek.red > cheek.green && cheek.green > cheek.blue, "face \(index)")
            let corner = image[2, 4]
            let apart =
                abs(Int(cheek.red) - Int(corner.red)) + abs(Int(cheek.green) - Int(corner.green))
                + abs(Int(cheek.blue) - Int(corner.blue))
            #expect(apart > 20, "face \(index)")
        }
    }

    @Test func gridPlacesPicturesRowByRow() {
        let images = (0..<5).map { patternImage(width: 10, height: 8, seed: $0) }
        let grid = ImageGrid(columns: 3, padding: 2).render(images)
        #expect(grid.width == 3 * 12 + 2 && grid.height == 2 * 10 + 2)
        for (index, image) in images.enumerated() {
            #expect(grid.cropped(x: 2 + index % 3 * 12, y: 2 + index / 3 * 10, width: 10, height: 8) == image)
        }
        #expect(grid[0, 0] == (255, 255, 255) && grid[2 + 2 * 12, 2 + 10] == (255, 255, 255))
        #expect(ImageGrid.square(of: 64).columns == 8 && ImageGrid.square(of: 10).columns == 4)
    }

    private func plot(_ series: [LinePlot.Series], logY: Bool = false) -> Image {
        LinePlot(title: "Loss", xLabel: "step", yLabel: "MSE", series: series, logY: logY)
            .render(width: 480, height: 300)
    }

    /// The number of pixels close to a color.
    private func count(_ image: Image, _ red: Int, _ green: Int, _ blue: Int) -> Int {
        (0..<image.width * image.height).count { index in
            let pixel = image[index % image.width, index / image.width]
            return abs(Int(pixel.red) - red) + abs(Int(pixel.green) - green) + abs(Int(pixel.blue) - blue)
                < 24
        }
    }

    @Test func everySeriesShowsInItsColor() {
        let falling = (0..<200).map { (x: Double($0), y: 1 / Double($0 + 1)) }
        let rising = (0..<200).map { (x: Double($0), y: Double($0) / 200) }
        let one = plot([.init("a", points: falling)])
        let two = plot([.init("a", points: falling), .init("b", points: rising, smooth: true)])
        #expect(count(one, 31, 102, 194) > 300 && count(one, 227, 107, 26) == 0)
        #expect(count(two, 31, 102, 194) > 300 && count(two, 227, 107, 26) > 300)
    }

    @Test func aLogarithmicAxisMakesAnExponentialStraight() {
        let points = (0...100).map { (x: Double($0), y: pow(10, -Double($0) / 25)) }
        let image = plot([.init("", points: points)], logY: true)
        // The curve's mean height by column, in the part without labels and grid lines.
        var heights: [(x: Double, y: Double)] = []
        for x in stride(from: 100, to: 440, by: 5) {
            let rows = (0..<image.height).filter { y in
                let pixel = image[x, y]
                return abs(Int(pixel.red) - 31) + abs(Int(pixel.green) - 102) + abs(Int(pixel.blue) - 194)
                    < 90
            }
            if let first = rows.first, let last = rows.last {
                heights.append((Double(x), Double(first + last) / 2))
            }
        }
        #expect(heights.count > 60)
        let (first, last) = (heights[0], heights[heights.count - 1])
        for point in heights {
            let straight = first.y + (last.y - first.y) * (point.x - first.x) / (last.x - first.x)
            #expect(abs(point.y - straight) < 2)
        }
    }

    @Test(arguments: [false, true])
    func oddSeriesAreDrawnAndDoNotCrash(logY: Bool) {
        let odd: [[(x: Double, y: Double)]] = [
            [], [(1, 1)], [(0, 0), (1, -1)], [(0, .nan), (1, .infinity)], [(5, 2), (5, 2)],
            [(0, 1e-300), (1, 1e300)], [(0, -1e308), (1e308, 1e308)], [(0, 3), (1, 3), (2, 3)],
        ]
        for points in odd {
            for smooth in [false, true] {
                let image = plot([.init("a, b", points: points, smooth: smooth)], logY: logY)
                #expect(image.width == 480 && image.height == 300)
            }
        }
        #expect(plot([]).pixels.contains { $0 < 128 }, "axes and labels stand without any series")
    }
}
