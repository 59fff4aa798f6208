import Datasets
import Foundation
import Imaging
import Testing
import TestSupport

/// Files with an image name that are not images, and archives with false headers.
@Suite struct HostileSourcesTests {
    private static let limit = "expected at most \(8 * (1 << 27) + 64 << 20)"

    // MARK: Files

    @Test(
        "pipes, sockets, devices, links and folders among images are named and can be left out",
        .timeLimit(.minutes(1)))
    func specialFiles() throws {
        let scratch = try ScratchFolder()
        let folder = try scratch.makeFolder("images")
        try writeFaces(3, to: folder)
        mkfifo("\(folder)/a.png", 0o600)
        symlink("b.png", "\(folder)/b.png")
        symlink("/dev/zero", "\(folder)/c.jpg")
        symlink("/nowhere", "\(folder)/d.jpg")
        let isBound = bindSocket("\(folder)/e.png")
        try writeFaces(1, to: try scratch.makeFolder("images/f.png"))

        let source = try openImageSource(folder)
        let bad = (0..<source.count).filter { (try? source.image(at: $0)) == nil }.map(source.itemName)
        #expect(bad == ["a.png", "b.png", "c.jpg", "d.jpg"] + (isBound ? ["e.png"] : []))
        #expect(source.count == bad.count + 4)
        #expect(imageError { try source.image(at: 3) }?.detail == "is a pipe, expected a regular file")

        var work = options(folder, scratch.file("out"))
        let message = datasetError(.badImages) { try prepareAlone(work) }
        #expect(message.contains("a.png: is a pipe") && message.contains("\(bad.count) such images in total"))
        work.skipBad = true
        let summary = try prepareAlone(work)
        #expect(summary.manifest.count == 4 && summary.manifest.skipped.map(\.item) == bad)
    }

    @Test(
        "a source that is neither a folder nor a file is rejected", .timeLimit(.minutes(1)),
        arguments: ["pipe", "/dev/zero"])
    func specialSource(name: String) throws {
        let scratch = try ScratchFolder()
        let path = name.hasPrefix("/") ? name : scratch.file(name)
        if !name.hasPrefix("/") { mkfifo(path, 0o600) }
        let error = imageError { try openImageSource(path) }
        #expect(error?.detail.hasSuffix("expected a regular file") == true)
    }

    @Test("a sparse file of a terabyte is refused by its size", .timeLimit(.minutes(1)))
    func sparseFile() throws {
        let scratch = try ScratchFolder()
        let folder = try scratch.makeFolder("images")
        try writeFaces(3, to: folder)
        try Data().write(to: URL(fileURLWithPath: "\(folder)/huge.png"))
        try #require(truncate("\(folder)/huge.png", off_t(1) << 40) == 0)
        var work = options(folder, scratch.file("out"))
        let message = datasetError(.badImages) { try prepareAlone(work) }
        #expect(message.contains("huge.png: 1099511627776 bytes; \(Self.limit)"))
        work.skipBad = true
        let summary = try prepareAlone(work)
        #expect(summary.manifest.count == 3 && summary.manifest.skipped.map(\.item) == ["huge.png"])
    }

    @Test("links that multiply folders are refused", .timeLimit(.minutes(1)))
    func linkBomb() throws {
        let scratch = try ScratchFolder()
        for level in 0..<12 {
            let folder = try scratch.makeFolder("level\(level)")
            for link in 0..<10 { symlink("../level\(level + 1)", "\(folder)/link\(link)") }
        }
        try writeFaces(1, to: try scratch.makeFolder("level12"))
        let error = imageError { try openImageSource(scratch.file("level0")) }
        #expect(error?.detail.contains("more than 10000 times") == true)
    }

    @Test(
        "thumbnails and trash of operating systems are ignored",
        arguments: [
            "@eaDir/a.jpg/SYNOFILE_THUMB_M.jpg", ".AppleDouble/a.jpg", "._a.jpg", "__MACOSX/._a.jpg",
            "#recycle/a.jpg", "Thumbs.db", "sub/THUMBS.DB", ".hidden/a.jpg", "$RECYCLE.BIN/a.jpg",
        ])
    func systemFiles(name: String) throws {
        let folder = try ScratchFolder()
        try folder.write("set/a.jpg", imageFixture("rgb.jpg"))
        try folder.write("set/\(name)", imageFixture("rgb.jpg"))
        try folder.run("tar", "-cf", "set.tar", "-C", "set", ".")
        for path in ["set", "set.tar"] {
            let source = try openImageSource("\(folder.path)/\(path)")
            #expect((0..<source.count).map(source.itemName) == ["a.jpg"])
        }
    }

    // MARK: Archives

    private func archive(_ members: [(name: String, size: String, type: Character)]) -> [UInt8] {
        members.flatMap { tarHeader(name: $0.name, size: Array($0.size.utf8), type: $0.type) }
            + [UInt8](repeating: 0, count: 1024)
    }

    @Test(
        "headers with false sizes are rejected",
        arguments: [
            "77777777777", "37777777777", "-0000000001", "9999999999\0", "\u{1}",
        ])
    func tarSizes(size: String) throws {
        let folder = try ScratchFolder()
        let path = try folder.write("a.tar", archive([("a.png", size, "0")]))
        #expect(imageError { try openImageSource(path) }?.kind == .badArchive)
    }

    @Test(
        "sizes in base 256, also negative ones, are rejected",
        arguments: [[0xFF, 0xFF], [0x80, 0x7F], [0x80, 0xFF]])
    func tarBinarySizes(start: [UInt8]) throws {
        let folder = try ScratchFolder()
        let size = start + [UInt8](repeating: 0xFF, count: 12 - start.count)
        let bytes = tarHeader(name: "a.png", size: size, type: "0") + [UInt8](repeating: 0, count: 1024)
        #expect(imageError { try openImageSource(try folder.write("a.tar", bytes)) }?.kind == .badArchive)
    }

    @Test(
        "false pax records are rejected or ignored",
        arguments: [
            "22 size=999999999999\n", "30 size=9223372036854775807\n", "99999 path=a.png\n", "-5 path=b\n",
            "0 =\n",
            "18446744073709551616 path=x\n", "11 size=-1\n",
        ])
    func paxRecords(record: String) throws {
        let folder = try ScratchFolder()
        var block = Array(record.utf8)
        let size = String(block.count, radix: 8)
        block += [UInt8](repeating: 0, count: 512 - block.count)
        let bytes =
            tarHeader(name: "pax", size: Array(size.utf8), type: "x") + block
            + tarHeader(name: "a.png", size: Array("0".utf8), type: "0") + [UInt8](repeating: 0, count: 1024)
        let path = try folder.write("a.tar", bytes)
        do {
            #expect(try openImageSource(path).count == 1)
        } catch {
            #expect(error.kind == .badArchive)
        }
    }

    @Test("a sparse member of a terabyte is refused when it is decoded")
    func sparseMember() throws {
        let folder = try ScratchFolder()
        // 2^40 bytes in octal.
        let bytes = tarHeader(name: "a.png", size: [0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], type: "0")
        let path = try folder.write("a.tar", bytes)
        try #require(truncate(path, off_t(1) << 40 + 2048) == 0)
        let source = try openImageSource(path)
        #expect(source.count == 1)
        #expect(imageError { try source.image(at: 0) }?.detail.contains(Self.limit) == true)
        #expect(source.fingerprint.hasPrefix("v2-"))
    }

    @Test("paths with .. are rejected, and absolute paths are only names")
    func pathTricks() throws {
        let folder = try ScratchFolder()
        let image = patternImage().pngData()
        func member(_ name: String) -> [UInt8] {
            tarHeader(name: name, size: Array(String(image.count, radix: 8).utf8), type: "0") + image
                + [UInt8](repeating: 0, count: (512 - image.count % 512) % 512)
        }
        let end = [UInt8](repeating: 0, count: 1024)
        let upwards = try folder.write("up.tar", member("../../../etc/a.png") + end)
        let error = imageError { try openImageSource(upwards) }
        #expect(error?.kind == .badArchive && error?.detail.contains("contains ../../../etc/a.png") == true)
        let both = try folder.write("both.tar", member("/etc/../etc/a.png") + member("/b/a.png") + end)
        #expect(imageError { try openImageSource(both) }?.kind == .badArchive)
        let absolute = try openImageSource(both, skipBad: true)
        #expect((0..<absolute.count).map(absolute.itemName) == ["b/a.png"])
        #expect(absolute.skipped == ["/etc/../etc/a.png"])
        #expect(try absolute.label(at: 0) == "b")
        #expect(try absolute.image(at: 0) == patternImage())
    }

    @Test("a member of negative size is refused; found by FuzzTar")
    func negativeSize() throws {
        let folder = try ScratchFolder()
        let image = patternImage().pngData()
        let size = Array(String(image.count, radix: 8).utf8)
        let header = tarHeader(
            name: "a.png", size: size, type: "0", gnuRealSize: [UInt8](repeating: 0xFF, count: 12))
        let path = try folder.write(
            "negative.tar", header + image + [UInt8](repeating: 0, count: 1536 - image.count % 512))
        #expect(imageError { try openImageSource(path) }?.kind == .badArchive)
    }

    @Test("a gzip bomb is refused before it fills the disk", .timeLimit(.minutes(2)))
    func gzipBomb() throws {
        let folder = try ScratchFolder()
        try folder.run("bash", "-c", "head -c 1200M /dev/zero | gzip -1 >bomb.tar.gz")
        let error = imageError { try openImageSource("\(folder.path)/bomb.tar.gz") }
        #expect(error?.detail.contains("over 200 times") == true && error?.detail.contains("gunzip") == true)
    }

    // MARK: Image limits

    @Test("the maximum image size is configurable")
    func megapixels() throws {
        let image = patternImage(width: 1100, height: 1000).pngData()
        let error = imageError { try Image.decode(image, name: "a.png", limits: ImageLimits(megapixels: 1)) }
        #expect(
            error?.detail
                == "1100x1000 pixels; expected at most 1 megapixels; raise the limit with --max-megapixels")
        #expect(try Image.decode(image, name: "a.png", limits: ImageLimits(megapixels: 2)).width == 1100)

        let scratch = try ScratchFolder()
        let folder = try scratch.makeFolder("images")
        try writeFaces(2, to: folder)
        try Data(image).write(to: URL(fileURLWithPath: "\(folder)/big.png"))
        var work = options(folder, scratch.file("out"))
        work.limits = ImageLimits(megapixels: 1)
        #expect(datasetError(.badImages) { try prepareAlone(work) }.contains("--max-megapixels"))
        work.limits = ImageLimits(megapixels: 2)
        #expect(try prepareAlone(work).manifest.count == 3)
    }

    @Test("the orientation in a PNG's eXIf chunk is applied like that of a JPEG", arguments: 1...8)
    func pngOrientation(orientation: UInt8) throws {
        let upright = patternImage()
        let bytes = pngWithOrientation(upright, orientation)
        #expect(exifOrientation(of: bytes) == Int(orientation))
        let decoded = try Image.decode(bytes, name: "a.png")
        #expect((decoded.width == upright.height) == (orientation >= 5))
        #expect(try #require(Image.size(of: bytes)) == (decoded.width, decoded.height))
        if orientation == 6 {
            // Rotated clockwise: the first row becomes the last column.
            #expect(decoded[decoded.width - 1, 3] == upright[3, 0])
        }
        // A chunk with a wrong checksum is ignored, as in libpng.
        var damaged = bytes
        damaged[bytes.count - 13] ^= 1
        #expect(exifOrientation(of: damaged) == 1)
    }

    @Test("sizes come from headers only", arguments: ["rgb.jpg", "progressive.jpg", "gray.png", "cmyk.jpg"])
    func sizes(name: String) throws {
        let bytes = try imageFixture(name)
        let image = try Image.decode(bytes, name: name)
        #expect(try #require(Image.size(of: bytes)) == (image.width, image.height))
        for count in stride(from: 0, to: bytes.count, by: 7) { _ = Image.size(of: Array(bytes[..<count])) }
    }

    @Test("a JPEG segment with a length below two is treated as empty, as in libjpeg")
    func emptySegment() throws {
        var bytes = try imageFixture("rgb.jpg")
        bytes.replaceSubrange(2..<2, with: [0xFF, 0xE0, 0, 0])
        let image = try Image.decode(bytes, name: "rgb.jpg")
        #expect(try #require(Image.size(of: bytes)) == (image.width, image.height))
    }
}

/// A PNG with an eXIf chunk inserted before its end.
private func pngWithOrientation(_ image: Image, _ orientation: UInt8) -> [UInt8] {
    let tiff: [UInt8] = [
        0x4D, 0x4D, 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0,
    ]
    let content = Array("eXIf".utf8) + tiff
    func bigEndian(_ value: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) }
    }
    var crc: UInt32 = ~0
    for byte in content {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
    }
    let chunk = bigEndian(UInt32(tiff.count)) + content + bigEndian(~crc)
    let png = image.pngData()
    return Array(png.dropLast(12)) + chunk + Array(png.suffix(12))
}

/// A ustar header with a correct checksum.
func tarHeader(name: String, size: [UInt8], type: Character, gnuRealSize: [UInt8]? = nil) -> [UInt8] {
    var block = [UInt8](repeating: 0, count: 512)
    func put(_ bytes: [UInt8], at: Int) { block.replaceSubrange(at..<at + bytes.count, with: bytes) }
    put(Array(name.utf8.prefix(100)), at: 0)
    put(Array("0000644\0".utf8), at: 100)
    put(Array(size.prefix(12)), at: 124)
    put(Array("        ".utf8), at: 148)
    block[156] = type.asciiValue ?? 0
    put(Array("ustar\u{0}00".utf8), at: 257)
    if let gnuRealSize {
        put(Array("ustar  \u{0}".utf8), at: 257)
        put(gnuRealSize, at: 483)
    }
    let sum = block.reduce(0) { $0 + Int($1) }
    let octal = String(sum, radix: 8)
    put(Array((String(repeating: "0", count: 6 - octal.count) + octal + "\0 ").utf8), at: 148)
    return block
}

/// Creates a socket file; false if the system does not allow it, for example because the path is too long.
private func bindSocket(_ path: String) -> Bool {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    guard path.utf8.count < 107 else { return false }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    return withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
        }
    }
}
