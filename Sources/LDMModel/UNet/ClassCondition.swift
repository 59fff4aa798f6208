import FileFormats
import Support

// B samples, n elements of a sample.

/// The classes of a batch and classifier-free guidance (Ho and Salimans, 2022).
///
/// With guidance, the prediction is ε(x, ∅) + s·(ε(x, c) - ε(x, ∅)) with guidance scale s, where ∅ is the null
/// class; both predictions are computed in one batch of 2B. s = 1 is the conditional prediction, as in diffusers'
/// pipelines.
package struct ClassCondition: Sendable, Equatable {
    /// The class of each sample, [B].
    package var classes: [Int]
    /// s.
    package var guidanceScale: Float
    /// Index of the null class; required for a scale other than 1.
    package var nullClass: Int?

    package init(classes: [Int], guidanceScale: Float = 1, nullClass: Int? = nil) {
        precondition(guidanceScale == 1 || nullClass != nil, "guidance requires a null class")
        (self.classes, self.guidanceScale, self.nullClass) = (classes, guidanceScale, nullClass)
    }
}

extension Denoiser {
    /// Computes the prediction for a batch, with classes and guidance if there are any.
    ///
    /// - Parameters:
    ///   - sample: [B, height, width, in] fp32
    ///   - timesteps: [B]
    ///   - condition: nil for an unconditional model
    ///   - output: [B, height, width, out] fp32
    package func predict(
        _ sample: UnsafeBufferPointer<Float>, height: Int, width: Int, timesteps: [Float],
        condition: ClassCondition?, into output: UnsafeMutableBufferPointer<Float>
    ) {
        guard let condition, condition.guidanceScale != 1, let nullClass = condition.nullClass else {
            return predict(
                sample, height: height, width: width, timesteps: timesteps, classes: condition?.classes,
                into: output)
        }
        let both = predict(
            Array(sample) + Array(sample), height: height, width: width, timesteps: timesteps + timesteps,
            classes: condition.classes + condition.classes.map { _ in nullClass })  // [2B, n]
        for i in 0..<output.count {
            let (conditional, unconditional) = (both[i], both[output.count + i])
            output[i] = unconditional + condition.guidanceScale * (conditional - unconditional)
        }
    }
}

/// What the user asks of a class-conditional model; the model's configuration gives it a meaning.
package struct ClassRequest: Sendable, Equatable {
    /// Names or indices of classes, which samples take in turn; nil for all classes.
    package var names: [String]?
    package var guidanceScale = 1.0
    /// Index of the null class, for a model whose configuration does not name its classes.
    package var nullClass: Int?

    package init(names: [String]? = nil, guidanceScale: Double = 1, nullClass: Int? = nil) {
        (self.names, self.guidanceScale, self.nullClass) = (names, guidanceScale, nullClass)
    }
}

/// The classes of samples: sample i has the class `classes[i % classes.count]`, so it is the same sample for any
/// number of samples and ranks.
package struct ClassSelection: Sendable, Equatable {
    package let classes: [Int]
    package let names: [String]
    package let guidanceScale: Double
    let nullClass: Int?

    /// The conditions of some samples.
    package func condition(of samples: Range<Int>) -> ClassCondition {
        ClassCondition(
            classes: samples.map { classes[$0 % classes.count] }, guidanceScale: Float(guidanceScale),
            nullClass: nullClass)
    }

    /// The class name of a sample.
    package func name(of sample: Int) -> String { names[sample % names.count] }
}

extension UNet2DConfig {
    /// Finds the requested classes among the model's. nil for an unconditional model.
    ///
    /// - Throws: for an unknown class, for a class or guidance with an unconditional model, and for guidance with
    ///   a model that has no null class.
    package func select(_ request: ClassRequest) throws(ConfigError) -> ClassSelection? {
        guard isConditional else {
            guard request.names == nil, request.guidanceScale == 1 else {
                throw ConfigError(
                    .unsupported, at: [request.names == nil ? "guidance_scale" : "class"],
                    "the model is unconditional (its config.json has no num_class_embeds); train one with"
                        + " model.num_class_embeds and diffusion.label_dropout")
            }
            return nil
        }
        var classes: [Int] = []
        if let names = request.names {
            for name in names { classes.append(try index(ofClass: name)) }
        } else {
            classes = Array(0..<classCount)
        }
        guard !classes.isEmpty else {
            throw ConfigError(
                .missingKey, at: ["class"], "the model does not record its classes; specify the index of one")
        }
        let nullClass = try request.guidanceScale == 1 ? nil : nullClass(request)
        return ClassSelection(
            classes: classes,
            names: classes.map { labelNames.indices.contains($0) ? labelNames[$0] : String($0) },
            guidanceScale: request.guidanceScale, nullClass: nullClass)
    }

    /// Number of classes, without the null class; 0 if unknown.
    package var classCount: Int { labelNames.isEmpty ? numClassEmbeds ?? 0 : labelNames.count }

    private func index(ofClass name: String) throws(ConfigError) -> Int {
        if let index = labelNames.firstIndex(of: name) { return index }
        if let index = Int(name), index >= 0, index < classCount || classEmbedType == .timestep {
            return index
        }
        let hint =
            nearestName(to: name, among: labelNames).map { "did you mean '\($0)'?" }
            ?? "expected an index in 0..<\(classCount)"
            + (labelNames.isEmpty ? "" : " or a name: \(labelNames.prefix(20).joined(separator: ", "))")
        throw ConfigError(.invalidValue, at: ["class"], "the model has no class '\(name)'; \(hint)")
    }

    private func nullClass(_ request: ClassRequest) throws(ConfigError) -> Int {
        if let nullClass = request.nullClass {
            try require(
                nullClass >= 0 && nullClass < (numClassEmbeds ?? 0), "null_class",
                "found \(nullClass), expected an index in 0..<\(numClassEmbeds ?? 0)")
            return nullClass
        }
        guard let nullClass else {
            throw ConfigError(
                .unsupported, at: ["guidance_scale"],
                labelNames.isEmpty
                    ? "the model's config.json does not record which class is the null class; specify --null-class INDEX"
                    : "the model has no null class; train one with diffusion.label_dropout")
        }
        return nullClass
    }
}
