import Datasets
import Foundation
import Imaging
import Testing
import TestSupport

@Suite struct SourcesTests {
    /// Three images in nested class folders, among operating system files.
    private func classFolders() throws -> ScratchFolder {
        let folder = try ScratchFolder()
        try folder.write("set/cats/b.PNG", patternImage(seed: 1).pngData())
        try folder.write("set/cats/a.jpg", imageFixture("rgb.jpg"))
        try folder.write("set/animals/dogs/c.JpEg", imageFixture("gray.jpg"))
        try folder.write("set/.DS_Store", [1, 2, 3])
        return folder
    }

    // MARK: Folders

    @Test func folderIsWalkedInAStableOrder() throws {
        let folder = try classFolders()
        let source = try openImageSource("\(folder.path)/set")
        #expect(source.count == 3 && source.skipped.isEmpty)
        #expect((0..<3).map(source.itemName) == ["animals/dogs/c.JpEg", "cats/a.jpg", "cats/b.PNG"])
        #expect(try (0..<3).map { try source.label(at: $0) } == ["dogs", "cats", "cats"])
        #expect(try source.image(at: 2) == patternImage(seed: 1))
        #expect(try source.image(at: 1).width == 24)
    }

    @Test func fingerprintFollowsTheContentAndNothingElse() throws {
        let (one, two) = (try classFolders(), try classFolders())
        let first = try openImageSource("\(one.path)/set").fingerprint
        #expect(try openImageSource("\(two.path)/set/").fingerprint == first)
        #expect(first.count == 19)
        try two.write("set/cats/b.PNG", patternImage(seed: 2).pngData())
        let changed = try openImageSource("\(two.path)/set").fingerprint
        #expect(changed != first)
        try two.run("mv", "set/cats/b.PNG", "set/cats/d.PNG")
        #expect(try openImageSource("\(two.path)/set").fingerprint != changed)
    }

    @Test func otherImageFormatsAreRefusedWithAConversion() throws {
        let folder = try classFolders()
        try folder.write("set/cats/z.TIFF", [1])
        let mixed = imageError { try openImageSource("\(folder.path)/set") }
        #expect(mixed?.kind == .mixed && mixed?.detail.contains("mogrify -format png *.tiff") == true)
    }

    @Test func webpFilesAreImages() throws {
        let folder = try ScratchFolder()
        try folder.write("set/a.webp", imageFixture("lossless.webp"))
        try folder.write("set/b.WEBP", imageFixture("exif6.webp"))
        try folder.run("tar", "-cf", "set.tar", "set")
        for source in [
            try openImageSource("\(folder.path)/set"), try openImageSource("\(folder.path)/set.tar"),
        ] {
            #expect(source.count == 2)
            #expect(try source.image(at: 0).pixels == imageFixture("lossless.webp.rgb"))
            let size = try source.size(at: 1)
            #expect(size?.width == 16 && size?.height == 24)
        }
    }

    @Test func emptyAndMixedFoldersAreRefused() throws {
        let folder = try classFolders()
        try folder.write("empty/.hidden", [])
        let empty = imageError { try openImageSource("\(folder.path)/empty") }
        #expect(empty?.kind == .empty && empty?.detail.contains("found nothing") == true)

        try folder.write("set/readme.txt", Array("hello".utf8))
        try folder.write("set/cats/list.csv", [])
        let mixed = imageError { try openImageSource("\(folder.path)/set") }
        #expect(mixed?.kind == .mixed)
        #expect(
            mixed?.detail.contains("2 files that are not images among 3 images (cats/list.csv, readme.txt)")
                == true)
        let source = try openImageSource("\(folder.path)/set", skipBad: true)
        #expect(source.count == 3 && source.skipped == ["cats/list.csv", "readme.txt"])

        let missing = imageError { try openImageSource("\(folder.path)/nowhere") }
        #expect(missing?.kind == .inaccessible)
    }

    @Test func aDamagedItemIsNamedWhenItsTurnComes() throws {
        let folder = try classFolders()
        try folder.write("set/cats/z.jpg", imageFixture("truncated.jpg"))
        try folder.run("ln", "-s", "nowhere.png", "set/cats/zz.png")
        let source = try openImageSource("\(folder.path)/set")
        let error = imageError { try source.image(at: 3) }
        #expect(error?.kind == .corrupt && error?.name.hasSuffix("set/cats/z.jpg") == true)
        #expect(imageError { try source.image(at: 4) }?.kind == .inaccessible)
    }

    @Test func linksAreFollowedAndCirclesEnd() throws {
        let folder = try classFolders()
        try folder.run("ln", "-s", "../../set", "set/cats/again")
        try folder.run("ln", "-s", "animals/dogs", "set/linked")
        let source = try openImageSource("\(folder.path)/set")
        #expect((0..<source.count).map(source.itemName).contains("linked/c.JpEg"))
        #expect(source.count == 4)
    }

    // MARK: Archives

    private static let longName = String(repeating: "a_long_folder_name/", count: 14) + "picture.png"

    @Test(arguments: ["gnu", "pax", "ustar"], ["", "z"])
    func archiveEqualsItsFolder(format: String, compression: String) throws {
        let folder = try classFolders()
        // ustar limits paths to 255 bytes, split at a slash.
        let deep = format == "ustar" ? String(Self.longName.dropFirst(40)) : Self.longName
        try folder.write("set/\(deep)", patternImage(seed: 3).pngData())
        let archive = "\(folder.path)/set.\(compression.isEmpty ? "tar" : "tgz")"
        try folder.run("tar", "--format=\(format)", "-c\(compression)f", archive, "-C", "set", ".")
        let source = try openImageSource(archive)
        let original = try openImageSource("\(folder.path)/set")
        #expect(source.count == 4)
        #expect(source.fingerprint == original.fingerprint)
        for index in 0..<source.count {
            #expect(source.itemName(at: index) == original.itemName(at: index))
            #expect(try source.label(at: index) == original.label(at: index))
            #expect(try source.image(at: index) == original.image(at: index))
        }
    }

    @Test func laterMembersReplaceEarlierOnes() throws {
        let folder = try classFolders()
        try folder.run("tar", "-cf", "set.tar", "set")
        try folder.write("set/cats/b.PNG", patternImage(seed: 9).pngData())
        try folder.run("tar", "-rf", "set.tar", "set/cats/b.PNG")
        let source = try openImageSource("\(folder.path)/set.tar")
        #expect(source.count == 3)
        #expect(try source.image(at: 2) == patternImage(seed: 9))
    }

    @Test func aDamagedMemberIsNamedWithItsArchive() throws {
        let folder = try ScratchFolder()
        try folder.write("x/bad.jpg", imageFixture("truncated.jpg"))
        try folder.run("tar", "-cf", "x.tar", "x")
        let source = try openImageSource("\(folder.path)/x.tar")
        #expect(imageError { try source.image(at: 0) }?.name.hasSuffix("x.tar:x/bad.jpg") == true)
    }

    @Test func everyTruncationOfAnArchiveIsRefused() throws {
        let folder = try classFolders()
        try folder.run("tar", "-b", "1", "-cf", "set.tar", "set")
        try folder.run("tar", "-czf", "set.tgz", "set")
        let tar = try [UInt8](Data(contentsOf: URL(fileURLWithPath: "\(folder.path)/set.tar")))
        // Archives end with two blocks of zeros; one is sufficient.
        for count in stride(from: 0, through: tar.count - 1024, by: 64) {
            let path = try folder.write("cut.tar", Array(tar[..<count]))
            #expect(
                imageError { try openImageSource(path) }?.kind == .badArchive,
                "\(count) of \(tar.count) bytes")
        }
        let gzip = try [UInt8](Data(contentsOf: URL(fileURLWithPath: "\(folder.path)/set.tgz")))
        for count in stride(from: 2, to: gzip.count, by: 41) {
            let path = try folder.write("cut.tgz", Array(gzip[..<count]))
            #expect(
                imageError { try openImageSource(path) }?.kind == .badArchive,
                "\(count) of \(gzip.count) bytes")
        }
        let half = try folder.write("cut.tar", Array(tar[..<(tar.count - 1024)]))
        let source = try openImageSource(half, skipBad: true)
        #expect(source.count == 3 && source.skipped.first?.contains("truncated") == true)
    }

    @Test func damagedArchiveHeadersNeverCrash() throws {
        let folder = try classFolders()
        try folder.run("tar", "-b", "1", "-cf", "set.tar", "set")
        let tar = try [UInt8](Data(contentsOf: URL(fileURLWithPath: "\(folder.path)/set.tar")))
        for position in stride(from: 0, to: 1024, by: 3) {
            var damaged = tar
            damaged[position] ^= 0xA5
            let path = try folder.write("damaged.tar", damaged)
            let error = imageError { try openImageSource(path) }
            #expect(error?.kind == .badArchive, "byte \(position)")
        }
    }

    @Test func otherFilesAreNoArchives() throws {
        let folder = try ScratchFolder()
        let text = try folder.write("notes.tar", [UInt8](repeating: 65, count: 2000))
        #expect(imageError { try openImageSource(text) }?.detail.contains("not a tar archive") == true)
        let short = try folder.write("short.tar", [1])
        #expect(imageError { try openImageSource(short) }?.kind == .badArchive)
    }

    // MARK: CIFAR-10

    private func record(label: UInt8, seed: Int) -> (bytes: [UInt8], image: Image) {
        let image = patternImage(width: 32, height: 32, seed: seed)
        let planes = (0..<3).flatMap { c in (0..<1024).map { image.pixels[3 * $0 + c] } }
        return ([label] + planes, image)
    }

    @Test func cifarBatchesAreReadInOrder() throws {
        let folder = try ScratchFolder()
        let records = (0..<5).map { record(label: UInt8($0 * 2), seed: $0) }
        try folder.write("data_batch_1.bin", records[0].bytes + records[1].bytes)
        try folder.write("data_batch_2.bin", records[2].bytes + records[3].bytes)
        try folder.write("test_batch.bin", records[4].bytes)
        let source = try openImageSource(folder.path)
        #expect(source.count == 4)
        for index in 0..<4 { #expect(try source.image(at: index) == records[index].image) }
        #expect(try (0..<4).map { try source.label(at: $0) } == ["airplane", "bird", "deer", "frog"])
        #expect(source.itemName(at: 3) == "data_batch_2.bin[1]")
        let test = try openImageSource("\(folder.path)/test_batch.bin")
        #expect(try test.count == 1 && test.label(at: 0) == "ship")
    }

    @Test func cifarBatchOfAWrongSizeOrLabelIsRefused() throws {
        let folder = try ScratchFolder()
        try folder.write("data_batch_1.bin", Array(record(label: 1, seed: 0).bytes.dropLast()))
        let error = imageError { try openImageSource(folder.path) }
        #expect(error?.kind == .badArchive)
        #expect(
            error?.description.contains("data_batch_1.bin: 3072 bytes; expected a multiple of 3073") == true)
        try folder.write("data_batch_1.bin", record(label: 77, seed: 0).bytes)
        let source = try openImageSource(folder.path)
        #expect(imageError { try source.image(at: 0) }?.detail.contains("label 77") == true)
        #expect(try source.label(at: 0) == nil)
    }

    // MARK: Synthetic faces

    @Test func syntheticFacesAreNamedByASpecification() throws {
        let source = try openImageSource("synthetic-faces:10", size: 32, seed: 5)
        #expect(source.count == 10 && source.name == "synthetic-faces:10")
        #expect(try source.image(at: 3) == SyntheticFaces(seed: 5).draw(3, size: 32))
        #expect(
            try openImageSource("synthetic-faces:10", size: 32, seed: 6).fingerprint != source.fingerprint)
        #expect(
            try openImageSource("synthetic-faces:10", size: 64, seed: 5).fingerprint != source.fingerprint)
        #expect(try openImageSource("synthetic-faces").count == SyntheticFacesSource.defaultCount)
        for bad in ["synthetic-faces:", "synthetic-faces:many", "synthetic-faces:0", "synthetic-faces:-3"] {
            #expect(imageError { try openImageSource(bad) }?.kind == .unknownSource)
        }
    }

    @Test func aSourceServesSeveralThreads() throws {
        let folder = try classFolders()
        try folder.run("tar", "-czf", "set.tgz", "-C", "set", ".")
        let source = try openImageSource("\(folder.path)/set.tgz")
        let expected = try (0..<source.count).map { try source.image(at: $0) }
        let wrong = Tally()
        DispatchQueue.concurrentPerform(iterations: 60) { turn in
            let index = turn % source.count
            if (try? source.image(at: index)) != expected[index] { wrong.increment() }
        }
        #expect(wrong.value == 0)
    }
}

/// A counter shared by threads.
private final class Tally: @unchecked Sendable {
    // Unchecked: the lock guards `count`.
    private var count = 0
    private let lock = NSLock()

    func increment() { lock.withLock { count += 1 } }
    var value: Int { lock.withLock { count } }
}
