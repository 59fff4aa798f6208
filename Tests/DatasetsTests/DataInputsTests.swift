import Datasets
import Foundation
import Imaging
import Testing
import TestSupport

/// Every kind of data that people have, made by Tests/Fixtures/data/make_data.py: six images with classes.
@Suite struct DataInputsTests {
    /// The folder of the examples, which are made once and removed at the end of the process.
    private static let folder = NSTemporaryDirectory() + "disttrain-test-\(UUID().uuidString)"
    private static let made: Result<Void, any Error> = Result {
        atexit { try? FileManager.default.removeItem(atPath: DataInputsTests.folder) }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["python3", fixturePath("data/make_data.py"), folder]
        try process.run()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0)
        try FileManager.default.copyItem(
            atPath: fixturePath("data/set.tar.zst"), toPath: "\(folder)/set.tar.zst")
        // Classes that contradict those of the batches.
        let rows = (0..<6).map { "data_batch_\($0 / 3 + 1).bin[\($0 % 3)],class0\n" }
        try Data(rows.joined().utf8).write(to: URL(fileURLWithPath: "\(folder)/contradiction.csv"))
    }

    private func path(_ name: String) throws -> String {
        try Self.made.get()
        return "\(Self.folder)/\(name)"
    }

    /// Image `i` of make_data.py.
    private func expected(_ i: Int, side: Int = 16, isGray: Bool = false) -> Image {
        var pixels: [UInt8] = []
        for y in 0..<side {
            for x in 0..<side {
                for c in 0..<3 {
                    pixels.append(UInt8((37 * i + 5 * y + 3 * x + 40 * (isGray ? 0 : c)) % 256))
                }
            }
        }
        return Image(width: side, height: side, pixels: pixels)
    }

    // MARK: Images

    @Test(
        "an archive has the images, names, labels and fingerprint of its folder",
        arguments: [
            "deflated.zip", "stored.zip", "zip64.zip", "set.tar", "set.tar.gz", "set.tar.zst", "set.tar.xz",
            "set.tar.bz2",
        ])
    func archives(name: String) throws {
        let folder = try openImageSource(path("faces"))
        let source = try openImageSource(path(name))
        #expect(source.count == 6)
        #expect(source.fingerprint == folder.fingerprint)
        for index in 0..<6 {
            #expect(source.itemName(at: index) == folder.itemName(at: index))
            #expect(try source.image(at: index) == expected(index))
            #expect(try source.size(at: index).map { $0 == (16, 16) } == true)
            #expect(try source.label(at: index) == (index < 3 ? "cats" : "dogs"))
        }
    }

    @Test("a folder inside an archive is a source of its own")
    func innerFolder() throws {
        let source = try openImageSource(path("masks.zip/CelebAMask-HQ/CelebA-HQ-img"))
        #expect((0..<source.count).map(source.itemName) == (0..<6).map { "\($0).png" })
        #expect(try source.image(at: 5) == expected(5))
        let one = try openImageSource(path("set.tar/dogs/4.png"))
        #expect(try one.count == 1 && one.image(at: 0) == expected(4))
        let missing = imageError { try openImageSource(path("masks.zip/images")) }
        #expect(missing?.detail.contains("it contains CelebAMask-HQ") == true)
    }

    @Test(
        "shards of WebDataset, as a folder or a pattern",
        arguments: [
            "shards", "packed", "shards/{00000..00002}.tar", "packed/*.tar.gz", "{shards,none}/*[0-9].tar",
        ])
    func shards(name: String) throws {
        if name.hasPrefix("{") {
            let error = imageError { try openImageSource(path(name)) }
            #expect(error?.name.hasSuffix("none/*[0-9].tar") == true)
            return
        }
        let source = try openImageSource(path(name))
        let ending = name.hasPrefix("packed") ? "tar.gz" : "tar"
        #expect(
            (0..<source.count).map(source.itemName)
                == (0..<6).map { "0000\($0 / 2).\(ending)/00000\($0 % 2).png" })
        for index in 0..<6 {
            #expect(try source.image(at: index) == expected(index))
            #expect(try source.label(at: index) == String(index / 2 * 5))
        }
    }

    @Test(
        "arrays of uint8",
        arguments: [
            "samples.npz", "labelled.npz", "compressed.npz", "images.npy", "gray.npy", "hq", "medical.npz",
        ])
    func arrays(name: String) throws {
        let source = try openImageSource(path(name))
        #expect(source.count == 6)
        for index in 0..<6 {
            #expect(try source.image(at: index) == expected(index, isGray: name == "gray.npy"))
            #expect(try source.size(at: index).map { $0 == (16, 16) } == true)
        }
        let isLabelled = ["labelled.npz", "compressed.npz", "medical.npz"].contains(name)
        #expect(
            try (0..<6).map { try source.label(at: $0) }
                == (isLabelled ? ["0", "0", "2", "2", "11", "11"] : Array(repeating: nil, count: 6)))
        #expect(source.fingerprint.hasPrefix("v2-"))
        let names = [
            "hq": "imgHQ00005.npy", "medical.npz": "train_images[5]", "images.npy": "images[5]",
            "gray.npy": "gray[5]",
        ]
        #expect(source.itemName(at: 5) == names[name] ?? "arr_0[5]")
        if name == "medical.npz" {
            let test = try openImageSource(path("medical.npz/test_images"))
            #expect(try test.count == 6 && test.image(at: 2) == expected(2, isGray: true))
        }
    }

    @Test(
        "CIFAR as torchvision downloads it, and as binary files",
        arguments: [
            "cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar-10-binary.tar.gz", "cifar-10-batches-bin",
            "cifar-100-python.tar.gz", "cifar-100-python", "cifar-100-binary",
        ])
    func cifar(name: String) throws {
        let source = try openImageSource(path(name))
        #expect(source.count == 6)
        for index in 0..<6 {
            #expect(try source.image(at: index) == expected(index, side: 32))
            #expect(
                try source.label(at: index)
                    == (name.hasPrefix("cifar-100") ? "fine9\(index)" : "class\(index)"))
        }
    }

    // MARK: Refusals

    @Test(
        "an input that cannot be used is refused with one line",
        arguments: [
            ("encrypted.zip", "1 of its 6 members are encrypted (cats/1.png)"),
            ("truncated.zip", "no directory at its end"), ("bomb.zip", "over 200 times its size"),
            ("overlap.zip", "cats/1.png shares bytes"), ("dots.zip", "contains ../../etc/a.png"),
            ("floats.npy", "elements of type <f4"), ("flat.npy", "has the shape [6, 768]"),
            ("short.npy", "truncated"), ("several.npz", "more than one array of images"),
            ("few_labels.npz", "labels of type <i4 and shape [2]"),
            ("both.tar", "labels in both dataset.json"),
            ("hostile/cifar-10-batches-py", "posix.system"), ("shards/{2..1}.tar", "names no files"),
            ("shards/{00..", "has { without }"), ("shards/*.zip", "no file matches"),
            ("labels.csv", "not a tar archive"), ("set.tar/birds", "it contains cats, dogs"),
            ("nowhere.zip/cats", "No such file"),
        ])
    func refusals(name: String, text: String) throws {
        let scratch = try ScratchFolder()
        let message = datasetError { try prepareAlone(options(path(name), scratch.file("out"))) }
        #expect(message.contains(text), "\(message)")
        #expect(try scratch.list() == [])
    }

    @Test(
        "a damaged member is named, and can be skipped",
        arguments: [
            ("damaged.zip", "checksum"), ("longer.zip", "more than its size of 100"),
            ("method.zip", "compressed by method 14"),
        ])
    func damagedMembers(name: String, text: String) throws {
        let scratch = try ScratchFolder()
        var work = try options(path(name), scratch.file("out"))
        let message = datasetError(.badImages) { try prepareAlone(work) }
        #expect(message.contains("cats/1.png") && message.contains(text), "\(message)")
        work.skipBad = true
        #expect(try prepareAlone(work).manifest.skipped.map(\.item) == ["cats/1.png"])
    }

    @Test("files of other formats come with the command that converts them")
    func otherFormats() throws {
        let scratch = try ScratchFolder()
        try scratch.write("scans/a.tiff", [0x49, 0x49, 42, 0])
        let error = imageError { try openImageSource(scratch.file("scans")) }
        #expect(error?.detail.contains("mogrify -format png *.tiff") == true)
        try scratch.write("mixed/a.png", patternImage().pngData())
        try scratch.write("mixed/b.JXL", [0xFF, 0x0A])
        let mixed = imageError { try openImageSource(scratch.file("mixed")) }
        #expect(
            mixed?.detail.contains("mogrify -format png *.jxl") == true
                && mixed?.detail.contains("--skip-bad") == true)
    }

    // MARK: Labels

    /// Prepares a source and returns the class names and the labels of all samples.
    private func classes(
        _ name: String, _ labels: String? = nil, size: Int = 16
    ) throws -> (names: [String], labels: [Int?]) {
        let scratch = try ScratchFolder()
        var work = try options(path(name), scratch.file("out"), size: size)
        work.labels = LabelChoice(try labels.map { $0 == "none" ? $0 : try path($0) })
        try prepareAlone(work)
        let dataset = try PixelDataset(PreparedFolder(work.output))
        return (dataset.classNames, (0..<dataset.count).map(dataset.label))
    }

    @Test("labels are stored with their classes, numbers in the order of their values")
    func labels() throws {
        for name in ["faces", "deflated.zip", "set.tar.zst"] {
            let (names, labels) = try classes(name)
            #expect(names == ["cats", "dogs"] && labels == [0, 0, 0, 1, 1, 1])
        }
        #expect(try openImageSource(path("edm.zip")).label(at: 5) == "8")
        let edm = try classes("edm.zip")
        #expect(edm.names == ["8", "9", "10"] && edm.labels == [2, 2, 1, 1, 0, 0])
        let shards = try classes("shards")
        #expect(shards.names == ["0", "5", "10"] && shards.labels == [0, 0, 1, 1, 2, 2])
        let arrays = try classes("compressed.npz")
        #expect(arrays.names == ["0", "2", "11"] && arrays.labels == [0, 0, 1, 1, 2, 2])
        let cifar = try classes("cifar-10-python.tar.gz", size: 32)
        #expect(cifar.names == (0..<6).map { "class\($0)" } && cifar.labels == [0, 1, 2, 3, 4, 5])
        #expect(try classes("edm_null.zip").names == [])
        #expect(try classes("faces", "none").labels == Array(repeating: nil, count: 6))
    }

    @Test("a table gives labels by path or by unique file name")
    func labelTable() throws {
        let (names, labels) = try classes("deflated.zip", "labels.csv")
        #expect(names == ["cat", "dog"] && labels == [0, 0, 0, 1, 1, 1])
        let header = try classes("faces", "header.csv")
        #expect(header.names == (0..<6).map(String.init) && header.labels == [0, 1, 2, 3, 4, 5])
    }

    @Test(
        "labels that are incomplete or contradict each other are refused",
        arguments: [
            ("faces", "unknown.csv", "1 of 7 rows name no image of"),
            ("faces", "missing.csv", "2 of 6 images of"),
            ("faces", "twice.csv", "line 7: cats/0.png is \"dog\", but \"cat\" in an earlier line"),
            ("faces", "nowhere.csv", "nowhere.csv: cannot be opened"),
            ("edm_partial.zip", nil, "2 of 6 images have no label in dataset.json"),
            ("unlabelled.tar", nil, "2 of 3 images have no label in the .cls files (1.png, 2.png)"),
            ("cifar-10-batches-bin", "contradiction.csv", "but \"class1\" in the batches"),
        ] as [(String, String?, String)])
    func labelRefusals(name: String, table: String?, text: String) throws {
        #expect(throws: DatasetError.self) { try classes(name, table) }
        let message = datasetError { _ = try classes(name, table) }
        #expect(message.contains(text), "\(message)")
    }

    @Test("images beside class folders are refused unless labels are ignored")
    func imagesBesideFolders() throws {
        let scratch = try ScratchFolder()
        try writeFaces(6, to: scratch.file("faces"), classes: 2)
        try patternImage().write(to: scratch.file("faces/top.png"))
        var work = options(scratch.file("faces"), scratch.file("out"))
        let message = datasetError(.mismatch) { try prepareAlone(work) }
        #expect(message.contains("1 of 7 images are not in a class folder (top.png)"))
        #expect(message.contains("--labels none"))
        work.labels = .none
        #expect(try prepareAlone(work).manifest.classNames == [])
        // The same content as version 0.1 wrote, which stored no labels here.
        #expect(try PreparedFolder(work.output).manifest.job.labelsHash == nil)
    }

    @Test("other labels are another dataset, and those of version 0.1 the same")
    func labelsIdentifyTheJob() throws {
        let scratch = try ScratchFolder()
        try writeFaces(12, to: scratch.file("faces"), classes: 2)
        var work = options(scratch.file("faces"), scratch.file("out"))
        #expect(try prepareAlone(work).manifest.job.labelsHash == nil)
        work.labels = .none
        #expect(datasetError(.mismatch) { try prepareAlone(work) }.contains("class labels was absent, now"))
    }
}
