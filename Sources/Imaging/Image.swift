/// An 8-bit image, RGB or grayscale: [height, width, channels], rows from top to bottom, without padding.
package struct Image: Equatable, Sendable {
    package let width: Int
    package let height: Int
    /// 3 for RGB, 1 for grayscale.
    package let channels: Int
    /// [height, width, channels] in row-major order.
    package var pixels: [UInt8]

    /// Default limit on the number of pixels, checked before memory is allocated (134 megapixels).
    package static let maximumPixels = 1 << 27
    /// Images with a shorter side are rejected, because they have no content to learn.
    package static let minimumSide = 8
    /// The supported numbers of channels.
    package static let channelCounts = [1, 3]

    package init(width: Int, height: Int, channels: Int = 3, pixels: [UInt8]) {
        precondition(width > 0 && height > 0, "an image has at least one pixel")
        precondition(Image.channelCounts.contains(channels), "an image has 1 or 3 channels")
        precondition(pixels.count == channels * width * height, "an image has a byte for each channel")
        (self.width, self.height, self.channels, self.pixels) = (width, height, channels, pixels)
    }

    /// An RGB image of one color.
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

    /// The color of a pixel of an RGB image.
    package subscript(x: Int, y: Int) -> (red: UInt8, green: UInt8, blue: UInt8) {
        get {
            precondition(channels == 3, "a grayscale image has no color")
            let index = 3 * (y * width + x)
            return (pixels[index], pixels[index + 1], pixels[index + 2])
        }
        set {
            precondition(channels == 3, "a grayscale image has no color")
            let index = 3 * (y * width + x)
            pixels[index] = newValue.red
            pixels[index + 1] = newValue.green
            pixels[index + 2] = newValue.blue
        }
    }
}

// MARK: Channels

extension Image {
    /// The image with 1 or 3 channels: the luma of its colors, or its gray level in all three channels.
    ///
    /// Luma is L = 0.299·R + 0.587·G + 0.114·B in fixed point, rounded: bit-identical to Pillow's mode "L". The
    /// weights sum to 1, so a gray image that was read as RGB keeps its levels.
    ///
    /// - Source: ITU-R BT.601, section 2.5.1; Pillow, src/libImaging/Convert.c (L24).
    package func converted(toChannels count: Int) -> Image {
        precondition(Image.channelCounts.contains(count), "an image has 1 or 3 channels")
        if count == channels { return self }
        if count == 3 {
            return Image(width: width, height: height, pixels: pixels.flatMap { [$0, $0, $0] })
        }
        let luma = [UInt8](unsafeUninitializedCapacity: width * height) { out, written in
            pixels.withUnsafeBufferPointer { from in
                for index in 0..<width * height {
                    let red = 19_595 * UInt32(from[3 * index])
                    let green = 38_470 * UInt32(from[3 * index + 1])
                    let blue = 7_471 * UInt32(from[3 * index + 2])
                    out[index] = UInt8((red + green + blue + 0x8000) >> 16)
                }
            }
            written = width * height
        }
        return Image(width: width, height: height, channels: 1, pixels: luma)
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
        out.reserveCapacity(channels * width * height)
        for row in y..<y + height {
            let start = channels * (row * self.width + x)
            out.append(contentsOf: pixels[start..<start + channels * width])
        }
        return Image(width: width, height: height, channels: channels, pixels: out)
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
        let C = channels
        let out = [UInt8](unsafeUninitializedCapacity: C * width * height) { out, count in
            pixels.withUnsafeBufferPointer { from in
                for y in 0..<height {
                    for x in 0..<width {
                        let (fromX, fromY) = source(x, y)
                        for c in 0..<C {
                            out[C * (y * width + x) + c] = from[C * (fromY * self.width + fromX) + c]
                        }
                    }
                }
            }
            count = C * width * height
        }
        return Image(width: width, height: height, channels: C, pixels: out)
    }
}

// MARK: Floats

extension Image {
    /// The pixels as model input: [height, width, channels] in [-1, 1], value / 127.5 - 1.
    package func floats() -> [Float] {
        [Float](unsafeUninitializedCapacity: pixels.count) { out, count in
            writeFloats(to: out)
            count = pixels.count
        }
    }

    /// Writes the pixels to one image of a batch: [height, width, channels] in [-1, 1].
    package func writeFloats(to out: UnsafeMutableBufferPointer<Float>) {
        precondition(out.count >= pixels.count, "the destination is smaller than the image")
        pixels.withUnsafeBufferPointer { pixels in
            for index in pixels.indices { out[index] = Float(pixels[index]) / 127.5 - 1 }
        }
    }

    /// Converts a model's output, [height, width, C] with C of 1 or 3, clamped to [-1, 1] and rounded; NaN
    /// becomes black.
    package init(width: Int, height: Int, floats: UnsafeBufferPointer<Float>) {
        let pixels = floats.map { value -> UInt8 in
            let scaled = (value + 1) * 127.5
            return scaled >= 0 ? UInt8(min(scaled, 255).rounded()) : 0
        }
        self.init(width: width, height: height, channels: floats.count / (width * height), pixels: pixels)
    }

    /// Converts a model's output, [height, width, C] with C of 1 or 3, clamped to [-1, 1] and rounded; NaN
    /// becomes black.
    package init(width: Int, height: Int, floats: [Float]) {
        self = floats.withUnsafeBufferPointer { Image(width: width, height: height, floats: $0) }
    }
}

/// Converts a dataset image to a training image: center crop to a square, luma if it has one channel, then
/// resize.
package struct ImageTransform: Equatable, Sendable, CustomStringConvertible {
    /// Side of the result in pixels.
    package let size: Int
    package let filter: ResizeFilter
    /// Channels of the result: 3, or 1 for luma.
    package let channels: Int

    package init(size: Int, filter: ResizeFilter = .lanczos, channels: Int = 3) {
        precondition(size > 0, "an image has at least one pixel")
        precondition(Image.channelCounts.contains(channels), "an image has 1 or 3 channels")
        (self.size, self.filter, self.channels) = (size, filter, channels)
    }

    /// A stable description: equal descriptions imply equal pixels, so a manifest can store it for
    /// comparison.
    package var description: String {
        let luma = channels == 1 ? "luma BT.601, " : ""
        return "center-crop square, \(luma)resize \(size)x\(size) \(filter.rawValue) antialias"
    }

    /// Number of bytes of a result.
    package var byteCount: Int { size * size * channels }

    /// Returns an image of `size` by `size` pixels.
    package func apply(_ image: Image) -> Image {
        image.centerCroppedToSquare().converted(toChannels: channels)
            .resized(width: size, height: size, filter: filter)
    }
}
