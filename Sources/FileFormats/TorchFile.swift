import Support

/// A file that `torch.save` of PyTorch 1.6 or later has written: `.pt`, `.pth`, `.bin`, `.ckpt`.
///
/// It is a zip archive whose member data.pkl describes the objects and whose members data/N hold the elements
/// of tensors, uncompressed. They are read in place, like those of a safetensors file, with their strides.
///
/// The pickle is read with `Pickle`, so nothing in it is executed: a file that needs anything besides
/// tensors, numbers, strings and containers is refused.
///
/// - Source: torch/serialization.py and torch/_utils.py; docs/source/notes/serialization.rst of PyTorch.
package final class TorchFile: NamedTensors {
    package let path: String
    /// Tensors in the order of the file.
    package let tensors: [SafetensorsInfo]

    private let file: PositionedFile
    private let layouts: [TorchTensor]
    private let index: [String: Int]

    /// Opens a file and reads its description. The tensors are those of the saved dictionary, or of its entry
    /// "state_dict" if it has one, as PyTorch Lightning writes it.
    package init(_ file: PositionedFile) throws(SafetensorsError) {
        self.file = file
        path = file.path
        do {
            let archive = try TorchArchive(file)
            layouts = try Self.stateDict(archive.pickle.root, archive)
        } catch let error as SafetensorsError {
            throw error
        } catch let error as FileError {
            throw SafetensorsError(error)
        } catch let error as PickleError {
            throw SafetensorsError(.header, path, Self.explain(error, path))
        } catch {
            let detail = (error as? ArchiveError)?.detail ?? String(describing: error)
            throw SafetensorsError(.header, path, "is a damaged zip archive: \(detail)")
        }
        tensors = layouts.map(\.info)
        index = Dictionary(uniqueKeysWithValues: tensors.enumerated().map { ($0.element.name, $0.offset) })
    }

    package var names: [String] { tensors.map(\.name) }

    package func info(of name: String) throws(SafetensorsError) -> SafetensorsInfo {
        if let position = index[name] { return tensors[position] }
        throw missing(name)
    }

    package func copyFloats(
        of name: String, into destination: UnsafeMutableBufferPointer<Float>
    ) throws(SafetensorsError) {
        let info = try info(of: name)
        try checkFloats(info, info.count, fit: destination.count)
        guard let layout = index[name].map({ layouts[$0] }), info.count > 0 else { return }
        do throws(FileError) {
            if layout.isContiguous {
                return try file.readFloats(at: layout.start, as: info.dtype, into: destination)
            }
            // Read all elements between the first and the last one, then pick.
            let stored = UnsafeMutableBufferPointer<Float>.allocate(capacity: layout.span)
            defer { stored.deallocate() }
            try file.readFloats(at: layout.start, as: info.dtype, into: stored)
            layout.forEachElement { destination[$0] = stored[$1] }
        } catch {
            throw SafetensorsError(error)
        }
    }

    // MARK: Contents

    /// The tensors of a dictionary of weights.
    private static func stateDict(
        _ root: PickleValue, _ archive: TorchArchive
    ) throws -> [TorchTensor] {
        let dictionary = root["state_dict"] ?? root
        guard let entries = dictionary.entries else {
            throw SafetensorsError(
                .header, archive.path,
                "holds \(root.kind), expected a dictionary of tensors: torch.save(model.state_dict(), FILE)")
        }
        var positions: [String: Int] = [:]
        var tensors: [TorchTensor] = []
        for entry in entries {
            guard let name = entry.key.stringValue,
                let tensor = try archive.tensor(entry.value, name: name)
            else { continue }
            if let position = positions.updateValue(tensors.count, forKey: name) {
                positions[name] = position
                tensors[position] = tensor
            } else {
                tensors.append(tensor)
            }
        }
        guard !tensors.isEmpty else {
            let keys = entries.prefix(9).map { $0.key.stringValue ?? $0.key.kind }
            throw SafetensorsError(
                .header, archive.path,
                "holds no tensors by name, but \(keys.isEmpty ? "nothing" : shortList(keys)); expected"
                    + " torch.save(model.state_dict(), FILE)")
        }
        // DistributedDataParallel prepends "module." to all names.
        let prefix = "module."
        guard tensors.allSatisfy({ $0.info.name.hasPrefix(prefix) }) else { return tensors }
        return tensors.map { $0.named(String($0.info.name.dropFirst(prefix.count))) }
    }

    private static func explain(_ error: PickleError, _ path: String) -> String {
        guard let refused = error.refused else { return "data.pkl \(error.detail)" }
        return
            "requests '\(refused)', but only tensors, numbers and names are read, and nothing is executed; if"
            + " you trust the file, save its weights alone: python3 -c \"import torch; c ="
            + " torch.load('\(path)', 'cpu', weights_only=False); torch.save(c.get('state_dict', c),"
            + " 'weights.ckpt')\""
    }
}

/// Where the elements of a tensor are.
struct TorchTensor: Sendable {
    let info: SafetensorsInfo
    /// Offset of its first element in the file.
    let start: Int
    /// Elements between neighbours in each dimension.
    let strides: [Int]

    func named(_ name: String) -> TorchTensor {
        let info = SafetensorsInfo(
            name: name, dtype: info.dtype, shape: info.shape, byteRange: info.byteRange)
        return TorchTensor(info: info, start: start, strides: strides)
    }

    /// Elements from the first to the last one in the file.
    var span: Int {
        info.count == 0 ? 0 : 1 + zip(info.shape, strides).reduce(0) { $0 + ($1.0 - 1) * $1.1 }
    }

    /// Whether the elements follow one another in row-major order.
    var isContiguous: Bool {
        var expected = 1
        for (side, stride) in zip(info.shape, strides).reversed() where side != 1 {
            if stride != expected { return false }
            expected *= side
        }
        return true
    }

    /// Calls `body` for each element, in row-major order, with its index and its distance from the first.
    func forEachElement(_ body: (_ index: Int, _ distance: Int) -> Void) {
        var position = [Int](repeating: 0, count: strides.count)
        var distance = 0
        for index in 0..<info.count {
            body(index, distance)
            for axis in strides.indices.reversed() {
                position[axis] += 1
                distance += strides[axis]
                if position[axis] < info.shape[axis] { break }
                distance -= strides[axis] * info.shape[axis]
                position[axis] = 0
            }
        }
    }
}
