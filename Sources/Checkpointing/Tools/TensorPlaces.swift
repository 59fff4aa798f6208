import TensorCore

/// The positions of the tensors in one folder of a checkpoint.
struct TensorPlaces {
    /// The folder's path, for errors.
    let path: String
    private var places: [String: (WeightFile, WeightFile.Tensor)] = [:]

    fileprivate init(_ weights: [WeightFile], path: String) {
        self.path = path
        for weight in weights {
            for tensor in weight.tensors { places[tensor.entry.name] = (weight, tensor) }
        }
    }

    func place(of name: String) throws(CheckpointError) -> (file: WeightFile, tensor: WeightFile.Tensor) {
        guard let place = places[name] else {
            throw CheckpointError(.damaged, path, "has no tensor '\(name)'")
        }
        return place
    }
}

extension Checkpoint {
    func tensors(of folder: String) -> TensorPlaces {
        TensorPlaces(weights.filter { $0.file.folder == folder }, path: at(folder))
    }

    /// A reader for a weight file; reuses `open` if it is a reader of the same file.
    func reader(of weight: WeightFile, reusing open: CheckpointReader?) throws(CheckpointError)
        -> CheckpointReader
    {
        let path = at(weight.file.path)
        if let open, open.path == path { return open }
        return try CheckpointReader(path, expected: weight.file.bytes)
    }
}
