import Foundation
import Support

/// The zip archive of a `TorchFile`: its pickle, and the storages that tensors are views of.
struct TorchArchive {
    let path: String
    let pickle: Pickle
    /// The byte range in the file of each storage, by its key.
    private let storages: [String: Range<Int>]

    /// Limit on data.pkl, which describes about a million tensors in that size.
    private static let maximumPickle = 256 << 20

    init(_ file: PositionedFile) throws {
        let path = file.path
        let zip = try ZipFile(size: file.size) { try file.read(at: $0, count: $1) }
        // All members are in a folder named like the file when it was saved.
        let name = zip.members.map(\.name).filter { ($0 as NSString).lastPathComponent == "data.pkl" }
            .min { $0.utf8.count < $1.utf8.count }
        guard let name else {
            throw SafetensorsError(
                .header, path, "is a zip archive without data.pkl, expected a file from torch.save")
        }
        let folder = name.dropLast("data.pkl".count)
        func member(_ name: String) throws -> Range<Int>? {
            guard let member = zip.members.first(where: { $0.name == folder + name }) else { return nil }
            return try Self.range(of: member, in: zip, path)
        }
        if zip.members.contains(where: { $0.name == folder + "constants.pkl" }) {
            throw SafetensorsError(
                .header, path,
                "is a TorchScript program, expected weights: torch.save(model.state_dict(), FILE)")
        }
        if let order = try member("byteorder"), order.count == 3 {
            throw SafetensorsError(.header, path, "was saved on a big-endian machine, which is not supported")
        }
        guard let range = try member("data.pkl"), range.count <= Self.maximumPickle else {
            throw SafetensorsError(.header, path, "data.pkl has more than \(Self.maximumPickle) bytes")
        }
        // PyTorch does not verify the checksum, and can be set to write none.
        self.path = path
        pickle = try Pickle(
            file.read(at: range.lowerBound, count: range.count), path: path, permitted: Self.permitted)
        let prefix = folder + "data/"
        var storages: [String: Range<Int>] = [:]
        for member in zip.members where member.name.hasPrefix(prefix) {
            storages[String(member.name.dropFirst(prefix.count))] = try Self.range(of: member, in: zip, path)
        }
        self.storages = storages
    }

    private static func range(
        of member: ZipFile.Member, in zip: ZipFile, _ path: String
    ) throws -> Range<Int> {
        guard member.method == 0, !member.isEncrypted else {
            throw SafetensorsError(
                .header, path,
                "\(member.name) is compressed or encrypted, expected a file as torch.save writes it")
        }
        return try zip.range(of: member)
    }

    /// The names that files of weights contain. They are values here; see `Pickle`.
    private static let permitted: Set<PickleGlobal> = {
        var names = PickledArray.globals
        func add(_ module: String, _ all: String) {
            for name in all.split(separator: " ") { names.insert(PickleGlobal(module, String(name))) }
        }
        add("collections", "OrderedDict Counter defaultdict")
        add(
            "torch._utils",
            "_rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state")
        add("torch._tensor", "_rebuild_from_type_v2")
        add("torch", "Tensor Size device")
        add("torch.nn.parameter", "Parameter")
        add("torch.storage", "UntypedStorage TypedStorage")
        for name in storageTypes.keys { add("torch", name) }
        for name in elementTypes.keys { add("torch", name) }
        add("torch", "float complex64 complex128 ComplexDoubleStorage")
        // Classes that PyTorch Lightning names beside the weights.
        for package in ["pytorch_lightning", "lightning.pytorch"] {
            add("\(package).callbacks.model_checkpoint", "ModelCheckpoint")
            add("\(package).callbacks.early_stopping", "EarlyStopping")
            add("\(package).utilities.parsing", "AttributeDict")
        }
        add("argparse", "Namespace")
        return names
    }()

    private static let storageTypes: [String: SafetensorsDType] = [
        "FloatStorage": .f32, "DoubleStorage": .f64, "HalfStorage": .f16, "BFloat16Storage": .bf16,
        "ByteStorage": .u8, "CharStorage": .i8, "ShortStorage": .i16, "IntStorage": .i32,
        "LongStorage": .i64, "BoolStorage": .bool, "ComplexFloatStorage": .c64,
    ]

    private static let elementTypes: [String: SafetensorsDType] = [
        "float32": .f32, "float64": .f64, "float16": .f16, "bfloat16": .bf16, "uint8": .u8, "int8": .i8,
        "int16": .i16, "int32": .i32, "int64": .i64, "bool": .bool, "uint16": .u16, "uint32": .u32,
        "uint64": .u64, "float8_e5m2": .f8E5M2, "float8_e4m3fn": .f8E4M3,
    ]
}

// MARK: Tensors

extension TorchArchive {
    /// The tensor that a value of the pickle describes; nil if it is no tensor.
    func tensor(_ value: PickleValue, name: String) throws -> TorchTensor? {
        var value = value
        // A parameter has its tensor as the first argument; there are at most two such layers.
        for _ in 0..<4 {
            guard let object = value.object else { return nil }
            var arguments = object.arguments
            switch object.global.name {
            case "_rebuild_parameter", "_rebuild_parameter_with_state":
                guard let data = arguments.first else { return nil }
                value = data
                continue
            case "_rebuild_from_type_v2":
                guard arguments.count >= 3, let inner = arguments[2].elements else { return nil }
                if arguments[0].global?.name.hasPrefix("_rebuild_parameter") == true, let data = inner.first {
                    value = data
                    continue
                }
                arguments = inner
            case "_rebuild_tensor_v2", "_rebuild_tensor_v3": break
            default: return nil
            }
            return try view(arguments, name: name)
        }
        throw failure(name, "is not a tensor in a form that PyTorch writes")
    }

    /// A view of a storage.
    ///
    /// - Parameter arguments: storage, offset, shape, strides, whether a gradient is required, hooks, and with
    ///   an untyped storage the type of the elements.
    private func view(_ arguments: [PickleValue], name: String) throws -> TorchTensor {
        guard arguments.count >= 4, let storage = arguments[0].persistentID?.elements, storage.count == 5,
            storage[0].stringValue == "storage", let storageType = storage[1].global,
            let key = storage[2].stringValue, let storageCount = storage[4].intValue,
            let offset = arguments[1].intValue,
            let shape = arguments[2].elements?.map({ $0.intValue ?? -1 }),
            let strides = arguments[3].elements?.map({ $0.intValue ?? -1 }), strides.count == shape.count,
            offset >= 0, storageCount >= 0, (shape + strides).allSatisfy({ $0 >= 0 })
        else { throw failure(name, "is not a tensor in a form that PyTorch writes") }
        let typeName = arguments.count >= 7 ? arguments[6].global : storageType
        guard let typeName,
            let dtype = Self.storageTypes[typeName.name] ?? Self.elementTypes[typeName.name]
        else { throw failure(name, "has elements of the type '\(storageType)', which is not supported") }
        guard let range = storages[key] else {
            throw failure(name, "has no elements in the file (data/\(key))")
        }

        let available = range.count / dtype.size
        guard let bytes = SafetensorsHeader.byteCount(shape: shape, dtype: dtype),
            let last = Self.lastElement(shape, strides), bytes == 0 || offset <= available - 1 - last
        else {
            throw failure(
                name, "\(dtype.rawValue) \(shape) does not fit its storage of \(range.count) bytes")
        }
        // A view that repeats elements could be much larger than the file.
        guard bytes / dtype.size <= available else {
            throw failure(name, "repeats elements of its storage; save a copy of it: tensor.clone()")
        }
        let start = range.lowerBound + (bytes == 0 ? 0 : offset * dtype.size)
        let info = SafetensorsInfo(name: name, dtype: dtype, shape: shape, byteRange: start..<start + bytes)
        return TorchTensor(info: info, start: start, strides: strides)
    }

    /// The distance of the last element from the first; nil if it does not fit into an `Int`.
    private static func lastElement(_ shape: [Int], _ strides: [Int]) -> Int? {
        var last = 0
        for (side, stride) in zip(shape, strides) where side > 1 {
            let (distance, overflows) = (side - 1).multipliedReportingOverflow(by: stride)
            let (sum, overflowsToo) = last.addingReportingOverflow(distance)
            if overflows || overflowsToo { return nil }
            last = sum
        }
        return last
    }

    private func failure(_ name: String, _ detail: String) -> SafetensorsError {
        SafetensorsError(.tensor, path, "tensor '\(name)' \(detail)")
    }
}
