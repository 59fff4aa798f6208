/// An 8-bit RGB image [height, width, 3]: rows from top to bottom, without padding.
package struct Image: Equatable, Sendable {
    package let width: Int
    package let height: Int
    /// [height, width, 3] in row-major order.
    package var pixels: [UInt8]

    /// Default limit on the number of pixels, checked before memory is allocated (134 megapixels).
    package static let maximumPixels = 1 << 27
    /// Images with a shorter side are rejected, because they have no content to learn.
    package static let minimumSide = 8

    package init(width: Int, height: Int, pixels: [UInt8]) {
        precondition(width > 0 && height > 0, "an image has at least one pixel")
        precondition(pixels.count == 3 * width * height, "an RGB image has 3 bytes a pixel")
        (self.width, self.height, self.pixels) = (width, height, pixels)
    }

    /// An image of one color.
    package init(width: Int, height: Int, red: UInt8, green: UInt8, blue: UInt8) {
        var pixels = [UInt8](repeating: red, count: 3 * width * height)
        if green != red || blue != red {
            for index in 0..<width * height {
                pixels[3 * index + 1] = green
                pixels[3 * index + 2] = blue
            }
        }
        self.init(width: width, height: height, pixels: pixels)
    }

    /// The color of a pixel.
    package subscript(x: Int, y: Int) -> (red: UInt8, green: UInt8, blue: UInt8) {
        get {
            let index = 3 * (y * width + x)
            return (pixels[index], pixels[index + 1], pixels[index + 2])
        }
        set {
            let index = 3 * (y * width + x)
            pixels[index] = newValue.red
            pixels[index + 1] = newValue.green
            pixels[index + 2] = newValue.blue
        }
    }
}

// MARK: Geometry

extension Image {
    /// Mirrored left to right.
    package func flippedHorizontally() -> Image {
        rearranged(width: width, height: height) { x, y in (width - 1 - x, y) }
    }

    /// The rectangle with its top left corner at (x, y); it must lie inside the image.
    package func cropped(x: Int, y: Int, width: Int, height: Int) -> Image {
        precondition(x >= 0 && y >= 0 && x + width <= self.width && y + height <= self.height)
        if width == self.width && height == self.height { return self }
        var out = [UInt8]()
        out.reserveCapacity(3 * width * height)
        for row in y..<y + height {
            let start = 3 * (row * self.width + x)
            out.append(contentsOf: pixels[start..<start + 3 * width])
        }
        return Image(width: width, height: height, pixels: out)
    }

    /// The largest centered square; for an odd margin, the extra line is cut at the right or bottom.
    package func centerCroppedToSquare() -> Image {
        let side = min(width, height)
        return cropped(x: (width - side) / 2, y: (height - side) / 2, width: side, height: side)
    }

    /// Rotates and mirrors the image to upright, from an EXIF orientation of 1 to 8 (TIFF 6.0, tag 274).
    func upright(orientation: Int) -> Image {
        let (w, h) = (width, height)
        return switch orientation {
        case 2: rearranged(width: w, height: h) { x, y in (w - 1 - x, y) }
        case 3: rearranged(width: w, height: h) { x, y in (w - 1 - x, h - 1 - y) }
        case 4: rearranged(width: w, height: h) { x, y in (x, h - 1 - y) }
        case 5: rearranged(width: h, height: w) { x, y in (y, x) }
        case 6: rearranged(width: h, height: w) { x, y in (y, h - 1 - x) }
        case 7: rearranged(width: h, height: w) { x, y in (w - 1 - y, h - 1 - x) }
        case 8: rearranged(width: h, height: w) { x, y in (w - 1 - y, x) }
        default: self
        }
    }

    /// An image whose pixel (x, y) is this image's pixel `source(x, y)`.
    private func rearranged(width: Int, height: Int, from source: (Int, Int) -> (Int, Int)) -> Image {
        let out = [UInt8](unsafeUninitializedCapacity: 3 * width * height) { out, count in
            pixels.withUnsafeBufferPointer { from in
                for y in 0..<height {
                    for x in 0..<width {
                        let (fromX, fromY) = source(x, y)
                        for c in 0..<3 {
                            out[3 * (y * width + x) + c] = from[3 * (fromY * self.width + fromX) + c]
                        }
                    }
                }
            }
            count = 3 * width * height
        }
        return Image(width: width, height: height, pixels: out)
    }
}

// MARK: Floats

extension Image {
    /// The pixels as model input: [height, width, 3] in [-1, 1], value / 127.5 - 1.
    package func floats() -> [Float] {
        [Float](unsafeUninitializedCapacity: pixels.count) { out, count in
            writeFloats(to: out)
            count = pixels.count
        }
    }

    /// Writes the pixels to one image of a batch: [height, width, 3] in [-1, 1].
    package func writeFloats(to out: UnsafeMutableBufferPointer<Float>) {
        precondition(out.count >= pixels.count, "the destination is smaller than the image")
        pixels.withUnsafeBufferPointer { pixels in
            for index in pixels.indices { out[index] = Float(pixels[index]) / 127.5 - 1 }
        }
    }

    /// Converts a model's output, [height, width, 3], clamped to [-1, 1] and rounded; NaN becomes black.
    package init(width: Int, height: Int, floats: UnsafeBufferPointer<Float>) {
        precondition(floats.count == 3 * width * height, "an RGB image has 3 values a pixel")
        let pixels = floats.map { value -> UInt8 in
            let scaled = (value + 1) * 127.5
            return scaled >= 0 ? UInt8(min(scaled, 255).rounded()) : 0
        }
        self.init(width: width, height: height, pixels: pixels)
    }

    /// Converts a model's output, [height, width, 3], clamped to [-1, 1] and rounded; NaN becomes black.
    package init(width: Int, height: Int, floats: [Float]) {
        self = floats.withUnsafeBufferPointer { Image(width: width, height: height, floats: $0) }
    }
}

/// Converts a dataset image to a training image: center crop to a square, then resize.
package struct ImageTransform: Equatable, Sendable, CustomStringConvertible {
    /// Side of the result in pixels.
    package let size: Int
    package let filter: ResizeFilter

    package init(size: Int, filter: ResizeFilter = .lanczos) {
        precondition(size > 0, "an image has at least one pixel")
        self.size = size
        self.filter = filter
    }

    /// A stable description: equal descriptions imply equal pixels, so a manifest can store it for
    /// comparison.
    package var description: String {
        "center-crop square, resize \(size)x\(size) \(filter.rawValue) antialias"
    }

    /// Returns an image of `size` by `size` pixels.
    package func apply(_ image: Image) -> Image {
        image.centerCroppedToSquare().resized(width: size, height: size, filter: filter)
    }
}
