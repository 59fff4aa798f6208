import Foundation
import Imaging
import TensorCore
import Testing
import TestSupport

@Suite struct PicturesDecodeTests {
    @Test(arguments: [
        "rgb.png", "gray.png", "bits.png", "palette.png", "rgba.png", "rgb16.png", "interlaced.png",
    ])
    func pngMatchesPillow(name: String) throws {
        let image = try Image.decode(imageFixture(name), name: name)
        #expect(image.width == 24 && image.height == 16)
        #expect(try image.pixels == imageFixture("\(name).rgb"))
    }

    // Versions of libjpeg-turbo differ by one or two levels in color conversion and chroma upsampling.
    @Test(arguments: [
        "rgb.jpg", "progressive.jpg", "gray.jpg", "cmyk.jpg", "cmyk_plain.jpg", "ycck.jpg", "exif3.jpg",
    ])
    func jpegMatchesPillow(name: String) throws {
        let image = try Image.decode(imageFixture(name), name: name)
        #expect(image.width == 24 && image.height == 16)
        #expect(try largestDifference(image.pixels, imageFixture("\(name).rgb")) <= 2)
    }

    @Test(arguments: [
        ("lossless.webp", 0), ("lossless_alpha.webp", 0), ("lossy.webp", 2), ("lossy_alpha.webp", 2),
    ])
    func webpMatchesPillow(name: String, tolerance: Int) throws {
        let image = try Image.decode(imageFixture(name), name: name)
        #expect(image.width == 24 && image.height == 16)
        #expect(try largestDifference(image.pixels, imageFixture("\(name).rgb")) <= tolerance)
    }

    @Test(arguments: ["exif6.jpg", "exif6.webp"])
    func quarterTurnInExifSwapsTheSides(name: String) throws {
        let image = try Image.decode(imageFixture(name), name: name)
        #expect(image.width == 16 && image.height == 24)
        #expect(try largestDifference(image.pixels, imageFixture("\(name).rgb")) <= 2)
    }

    @Test(arguments: [
        ("lossless.webp", 24, 16), ("lossless_alpha.webp", 24, 16), ("lossy.webp", 24, 16),
        ("lossy_alpha.webp", 24, 16), ("exif6.webp", 16, 24), ("bomb.webp", 16383, 16383),
        ("animated.webp", 24, 16),
    ])
    func sizeOfAWebPIsInItsHeader(name: String, width: Int, height: Int) throws {
        let bytes = try imageFixture(name)
        let size = Image.size(of: bytes)
        #expect(size?.width == width && size?.height == height)
        for count in 0..<30 { #expect(Image.size(of: Array(bytes[..<count])) == nil) }
    }

    @Test(arguments: [
        ([0x49, 0x49, 0x2A, 0], "a TIFF", "*.tif"), (Array("BM1234".utf8), "a BMP", "*.bmp"),
        (Array("....ftypavif".utf8), "an AVIF", "*.avif"), (Array("....ftypheic".utf8), "a HEIC", "*.heic"),
    ])
    func otherFormatsAreNamedWithAConversion(bytes: [UInt8], kind: String, files: String) {
        let error = imageError { try Image.decode(bytes, name: "a") }
        #expect(error?.kind == .notAnImage && error?.detail.contains(kind) == true)
        #expect(error?.detail.hasSuffix("mogrify -format png \(files)") == true)
    }

    @Test(arguments: [
        ("truncated.jpg", ImageError.Kind.corrupt, "JPEG"),
        ("notanimage.jpg", .notAnImage, "GIF"),
        ("onepixel.png", .tooSmall, "1x1"),
        ("bomb.png", .tooLarge, "60000x60000"),
        ("bomb.webp", .tooLarge, "16383x16383"),
        ("animated.webp", .animated, "webpmux -get frame 1"),
    ])
    func badImageIsRefusedByName(name: String, kind: ImageError.Kind, found: String) throws {
        let bytes = try imageFixture(name)
        let error = imageError { try Image.decode(bytes, name: "photos/\(name)") }
        #expect(error?.kind == kind)
        #expect(error?.description.hasPrefix("photos/\(name): ") == true)
        #expect(error?.detail.contains(found) == true)
    }

    @Test func minimumSideCanBeLowered() throws {
        let image = try Image.decode(imageFixture("onepixel.png"), name: "one", minimumSide: 1)
        #expect(image.pixels == [9, 8, 7])
    }

    @Test func missingFileIsNamed() {
        let error = imageError { try Image.read("/nowhere/a.png") }
        #expect(error?.kind == .inaccessible)
        #expect(error?.description.contains("/nowhere/a.png") == true)
    }

    @Test(arguments: [
        "rgb.png", "palette.png", "rgb16.png", "interlaced.png", "rgb.jpg", "progressive.jpg", "cmyk.jpg",
        "exif6.jpg", "lossless.webp", "lossless_alpha.webp", "lossy.webp", "lossy_alpha.webp", "exif6.webp",
    ])
    func everyTruncationThrows(name: String) throws {
        let bytes = try imageFixture(name)
        for count in 0..<bytes.count {
            #expect(throws: ImageError.self, "\(count) of \(bytes.count) bytes") {
                try Image.decode(Array(bytes[..<count]), name: name)
            }
        }
    }

    /// Decoding damaged files must return an image or throw ``ImageError``, and must never crash.
    @Test(arguments: [
        "palette.png", "interlaced.png", "rgb.jpg", "progressive.jpg", "ycck.jpg", "exif6.jpg",
        "lossless.webp", "lossy_alpha.webp", "exif6.webp", "animated.webp",
    ])
    func damagedBytesNeverCrash(name: String) throws {
        let bytes = try imageFixture(name)
        var random = CounterRandom(seed: 4, purpose: .test)
        var refused = 0
        for _ in 0..<600 {
            var damaged = bytes
            for _ in 0...random.integer(below: 4) {
                damaged[random.integer(below: damaged.count)] = UInt8(random.integer(below: 256))
            }
            do {
                let image = try Image.decode(damaged, name: name, minimumSide: 1)
                #expect(image.pixels.count == 3 * image.width * image.height)
                let size = Image.size(of: damaged)
                #expect(size?.width == image.width && size?.height == image.height)
            } catch { refused += 1 }
        }
        #expect(refused > 0)
    }

    @Test func pngRoundTripKeepsPixelsAndText() throws {
        let image = patternImage(width: 33, height: 9)
        let bytes = image.pngData(text: ["Software": "disttrain", "step": "1000", "Author": "Zoë, 雪"])
        #expect(try Image.decode(bytes, name: "round trip") == image)
        let text = Image.pngText(bytes)
        #expect(text.map(\.key) == ["Software", "step", "Author"])
        #expect(text.map(\.value) == ["disttrain", "1000", "Zoë, 雪"])
    }

    @Test func writingReplacesTheFileAndLeavesNothingElse() throws {
        let folder = try ScratchFolder()
        let path = "\(folder.path)/a.png"
        try patternImage(seed: 1).write(to: path)
        try patternImage(seed: 2).write(to: path, text: ["step": "2"])
        #expect(try Image.read(path) == patternImage(seed: 2))
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["a.png"])
        let error = imageError { try patternImage().write(to: "\(folder.path)/missing/a.png") }
        #expect(error?.kind == .inaccessible)
        #expect(error?.description.contains("missing/a.png") == true)
    }
}

@Suite struct PicturesGrayTests {
    /// A grayscale image and the same in RGB.
    private func pair(width: Int = 23, height: Int = 17) -> (gray: Image, rgb: Image) {
        let gray = patternImage(width: width, height: height).converted(toChannels: 1)
        return (gray, gray.converted(toChannels: 3))
    }

    @Test func lumaIsPillows() throws {
        let bytes = try imageFixture("luma.bin")  // R, G, B, L of 256 colors
        let colors = stride(from: 0, to: bytes.count, by: 4).flatMap { bytes[$0..<$0 + 3] }
        let expected = stride(from: 3, to: bytes.count, by: 4).map { bytes[$0] }
        let luma = Image(width: 16, height: 16, pixels: Array(colors)).converted(toChannels: 1)
        #expect(luma.channels == 1 && luma.pixels == expected)
    }

    @Test func aGrayImageThroughRGBKeepsItsLevels() {
        let (gray, rgb) = pair()
        #expect(gray.channels == 1 && gray.pixels.count == 23 * 17)
        #expect(rgb.channels == 3 && rgb.converted(toChannels: 1) == gray)
        let levels = Image(width: 256, height: 1, channels: 1, pixels: Array(0...255))
        #expect(levels.converted(toChannels: 3).converted(toChannels: 1) == levels)
    }

    @Test func geometryIsThatOfEachChannel() {
        let (gray, rgb) = pair()
        func same(_ change: (Image) -> Image) -> Bool { change(rgb) == change(gray).converted(toChannels: 3) }
        #expect(same { $0.flippedHorizontally() })
        #expect(same { $0.cropped(x: 3, y: 2, width: 11, height: 9) })
        #expect(same { $0.centerCroppedToSquare() })
        for filter in ResizeFilter.allCases {
            for (width, height) in [(9, 12), (40, 31), (23, 5), (1, 1)] {
                #expect(same { $0.resized(width: width, height: height, filter: filter) })
            }
        }
    }

    @Test func transformToOneChannel() {
        let image = patternImage(width: 31, height: 20)
        let transform = ImageTransform(size: 16, channels: 1)
        #expect(transform.description == "center-crop square, luma BT.601, resize 16x16 lanczos antialias")
        let expected = image.centerCroppedToSquare().converted(toChannels: 1).resized(width: 16, height: 16)
        #expect(transform.apply(image) == expected && expected.channels == 1)
        #expect(expected.floats().count == 16 * 16)
        #expect(Image(width: 16, height: 16, floats: expected.floats()) == expected)
    }

    @Test func pngOfOneChannelIsGrayscale() throws {
        let (gray, rgb) = pair()
        let bytes = gray.pngData(text: ["step": "1"])
        #expect(bytes[25] == 0 && rgb.pngData()[25] == 2)  // the color type in the header
        #expect(try Image.decode(bytes, name: "gray") == rgb)
        #expect(Image.pngText(bytes).map(\.key) == ["step"])
    }

    @Test func gridIsGrayscaleIfAllImagesAre() {
        let (gray, rgb) = pair()
        let grid = ImageGrid(columns: 2).render([gray, gray, gray])
        #expect(grid.channels == 1)
        #expect(grid.cropped(x: 2, y: 2, width: 23, height: 17) == gray)
        let mixed = ImageGrid(columns: 2).render([gray, rgb])
        #expect(mixed.channels == 3 && mixed.cropped(x: 2, y: 2, width: 23, height: 17) == rgb)
    }
}

@Suite struct PicturesResizeTests {
    private func source() throws -> Image {
        try Image(width: 60, height: 40, pixels: imageFixture("resize_source_60x40.rgb"))
    }

    @Test(arguments: [(30, 20), (17, 13), (90, 55), (8, 40)])
    func lanczosIsPillows(width: Int, height: Int) throws {
        let out = try source().resized(width: width, height: height, filter: .lanczos)
        #expect(try out.pixels == imageFixture("lanczos_\(width)x\(height).rgb"))
    }

    @Test(arguments: [(30, 20), (15, 10), (17, 13), (23, 37)])
    func areaIsTheExactAverage(width: Int, height: Int) throws {
        let out = try source().resized(width: width, height: height, filter: .area)
        #expect(try largestDifference(out.pixels, imageFixture("area_\(width)x\(height).rgb")) <= 1)
    }

    @Test(arguments: ResizeFilter.allCases, [(1, 1), (7, 3), (64, 64), (61, 41)])
    func aFlatPictureStaysFlat(filter: ResizeFilter, size: (Int, Int)) {
        let flat = Image(width: 31, height: 23, red: 200, green: 3, blue: 255)
        let out = flat.resized(width: size.0, height: size.1, filter: filter)
        #expect(out == Image(width: size.0, height: size.1, red: 200, green: 3, blue: 255))
    }

    @Test func aFineCheckerboardBecomesGreyAndDoesNotAlias() {
        var board = Image(width: 256, height: 256, red: 0, green: 0, blue: 0)
        for y in 0..<256 { for x in 0..<256 where (x + y) % 2 == 0 { board[x, y] = (255, 255, 255) } }
        for filter in ResizeFilter.allCases {
            let out = board.resized(width: 37, height: 37, filter: filter)
            #expect(out.pixels.allSatisfy { abs(Int($0) - 127) <= 8 }, "\(filter)")
        }
    }

    @Test(arguments: [(60, 20), (20, 60), (33, 32)])
    func transformCropsTheMiddle(width: Int, height: Int) {
        var image = Image(width: width, height: height, red: 255, green: 0, blue: 0)
        let side = min(width, height)
        for y in (height - side) / 2..<(height - side) / 2 + side {
            for x in (width - side) / 2..<(width - side) / 2 + side { image[x, y] = (10, 20, 30) }
        }
        let transform = ImageTransform(size: 16, filter: .area)
        #expect(transform.apply(image) == Image(width: 16, height: 16, red: 10, green: 20, blue: 30))
        #expect(transform.description == "center-crop square, resize 16x16 area antialias")
        #expect(ImageTransform(size: 64).description == "center-crop square, resize 64x64 lanczos antialias")
    }

    @Test func flippingTwiceGivesTheSame() {
        let image = patternImage(width: 7, height: 5)
        let flipped = image.flippedHorizontally()
        #expect(flipped[0, 2] == image[6, 2] && flipped[3, 4] == image[3, 4])
        #expect(flipped != image && flipped.flippedHorizontally() == image)
    }

    @Test func floatsCoverMinusOneToOneAndRoundBack() {
        let image = patternImage(width: 20, height: 20)
        let floats = image.floats()
        #expect(Image(width: 20, height: 20, floats: floats) == image)
        #expect(
            Image(width: 1, height: 1, red: 0, green: 255, blue: 51).floats() == [
                -1, 1, Float(51) / 127.5 - 1,
            ])
        let clamped = Image(width: 1, height: 1, floats: [-7, .infinity, .nan])
        #expect(clamped.pixels == [0, 255, 0])
    }
}
