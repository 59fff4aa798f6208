/// A NumPy array in a pickle, as NumPy 1 and 2 write it under Python 2 and 3.
///
/// - Source: numpy/_core/src/multiarray/methods.c, `array_reduce` and `array_reduce_ex_picklebuffer`; descriptor.c,
///   `arraydescr_reduce`.
package struct PickledArray {
    package let shape: [Int]
    /// "u", "i", "f", "b" or another of NumPy's kinds of elements.
    package let kind: String
    /// Bytes of one element.
    package let itemSize: Int
    package let isBigEndian: Bool
    /// Whether the first dimension varies fastest.
    package let isFortranOrder: Bool
    /// The bytes of all elements, in the array's order and byte order.
    package let bytes: [UInt8]

    /// The classes and functions that pickled arrays refer to.
    package static let globals: Set<PickleGlobal> = {
        var globals: Set<PickleGlobal> = [
            PickleGlobal("numpy", "ndarray"), PickleGlobal("numpy", "dtype"),
            PickleGlobal("_codecs", "encode"),
        ]
        for package in ["numpy.core", "numpy._core"] {
            globals.insert(PickleGlobal("\(package).multiarray", "_reconstruct"))
            globals.insert(PickleGlobal("\(package).multiarray", "scalar"))
            globals.insert(PickleGlobal("\(package).numeric", "_frombuffer"))
        }
        return globals
    }()

    /// Reads an array.
    ///
    /// - Parameter name: its name in messages.
    package init(_ value: PickleValue, name: String) throws(PickleError) {
        func failure(_ detail: String) -> PickleError { value.error("\(name): \(detail)") }
        guard let object = value.object else {
            throw failure("is \(value.kind), expected a NumPy array")
        }
        let parts: (shape: PickleValue, type: PickleValue, isFortran: Bool, data: PickleValue)
        switch object.global.name {
        case "_reconstruct":
            // The state: version, shape, type, whether in Fortran order, bytes. Version 0 has no first entry.
            guard let state = object.state?.elements, (4...5).contains(state.count) else {
                throw failure("is an array without contents")
            }
            let last = state.count - 1
            let isFortran = state[last - 1].boolValue ?? (state[last - 1].intValue == 1)
            parts = (state[last - 3], state[last - 2], isFortran, state[last])
        case "_frombuffer":
            // NumPy 2.3 has a fifth argument, the order of the axes, for arrays in no order.
            let arguments = object.arguments
            guard (4...5).contains(arguments.count), arguments.count == 4 || arguments[4].isNone else {
                throw failure("is an array in an order of axes that is not supported")
            }
            let order = arguments[3].stringValue
            parts = (arguments[2], arguments[1], order == "F", arguments[0])
        default: throw failure("is \(value.kind), expected a NumPy array")
        }
        guard let sides = parts.shape.elements else { throw failure("has no shape") }
        shape = sides.map { $0.intValue ?? -1 }
        isFortranOrder = parts.isFortran
        (kind, itemSize, isBigEndian) = try Self.elementType(parts.type, failure)
        guard let bytes = parts.data.withBytes({ Array($0) }) else {
            throw failure("holds \(parts.data.kind), expected numbers")
        }
        self.bytes = bytes
        var size = itemSize
        for side in shape {
            let (product, overflows) = size.multipliedReportingOverflow(by: side)
            guard side >= 0, !overflows else { throw failure("has the shape \(shape)") }
            size = product
        }
        guard size == bytes.count else {
            throw failure(
                "has \(bytes.count) bytes, expected \(size) for the shape \(shape) of \(itemSize)-byte elements"
            )
        }
    }

    /// The type is `dtype('u1', align, copy)`, and its state begins with a version and the byte order.
    private static func elementType(
        _ value: PickleValue, _ failure: (String) -> PickleError
    ) throws(PickleError) -> (kind: String, size: Int, isBigEndian: Bool) {
        guard let object = value.object, object.global.name == "dtype",
            let text = object.arguments.first?.stringValue, let kind = text.first, kind.isLetter,
            let size = Int(text.dropFirst()), (1...64).contains(size)
        else { throw failure("has elements of an unknown type") }
        let order = object.state?.elements?.dropFirst().first?.stringValue
        return (String(kind), size, order == ">")
    }
}
