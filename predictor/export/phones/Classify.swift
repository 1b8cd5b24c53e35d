// NOT BUILT OR RUN WHERE IT WAS WRITTEN: there is no Swift compiler. `Prepare` follows Prepare.java,
// which is compiled and tested, line by line. Compare its pixels with the server's before you use it.
// Swift package: https://github.com/pytorch/executorch, branch swiftpm-VERSION with the version that
// export.json names, with the products executorch, backend_xnnpack and kernels_optimized.

import CoreGraphics
import ExecuTorch
import Foundation

/// Names the most probable class of a photo. The file model.pte has the description in it.
///
/// Turn the photo by its EXIF orientation before `classify`. The system's decoder may differ from
/// the server's by a level or two.
public final class Classify {
    public struct Prediction {
        public let index: Int, id: String, name: String
        public let probability: Double // 0 to 1
    }

    private struct Failure: Error { let message: String }

    private let module: Module
    private let prepare: Prepare
    private let labels: [String: [String]]
    private let activation: String

    public init(path: String) throws {
        module = Module(filePath: path)
        let text: String? = try module.execute("predictor").first?.string
        guard let json = text?.data(using: .utf8),
            let card = try JSONSerialization.jsonObject(with: json) as? [String: Any],
            let input = card["input"] as? [String: Any],
            let labels = card["labels"] as? [String: [String]],
            let activation = (card["output"] as? [String: Any])?["activation"] as? String,
            let prepare = Prepare(input)
        else { throw Failure(message: "\(path) has no description that this app understands.") }
        (self.prepare, self.labels, self.activation) = (prepare, labels, activation)
    }

    /// Call it from one thread at a time, and not from the user interface's.
    public func classify(_ photo: CGImage) throws -> Prediction {
        var rgba = [UInt8](repeating: 255, count: 4 * photo.width * photo.height)
        let context = CGContext(
            data: &rgba, width: photo.width, height: photo.height, bitsPerComponent: 8,
            bytesPerRow: 4 * photo.width, space: CGColorSpace(name: CGColorSpace.sRGB)!,
            bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        guard let context else { throw Failure(message: "The photo cannot be drawn.") }
        let whole = CGRect(x: 0, y: 0, width: photo.width, height: photo.height)
        context.setFillColor(red: 1, green: 1, blue: 1, alpha: 1)
        context.fill(whole)
        context.draw(photo, in: whole)
        context.flush()
        let batch = try prepare.normalised(rgba, photo.width, photo.height)
        let shape = [1, prepare.channels, prepare.height, prepare.width]
        let output: Tensor<Float> = try module.forward(Tensor<Float>(batch, shape: shape))
        return best(output.scalars().map(Double.init))
    }

    private func best(_ logits: [Double]) -> Prediction {
        var index = logits.indices.max { logits[$0] < logits[$1] }!
        var probability = logits[index]
        if activation == "softmax" {
            probability = 1 / logits.map { exp($0 - logits[index]) }.reduce(0, +)
        } else if activation == "sigmoid" {
            probability = 1 / (1 + exp(-probability))
        }
        if logits.count == 1 { // one output is the evidence for the second of two classes
            index = probability > 0.5 ? 1 : 0
            probability = index == 1 ? probability : 1 - probability
        }
        let label = labels[String(index)] ?? ["", ""]
        return Prediction(index: index, id: label[0], name: label[1], probability: probability)
    }
}

/// An upright photo's pixels to what the network takes, with Pillow's fixed-point resize.
public struct Prepare {
    private static let precisionBits = 22, maxAspectRatio = 16.0

    struct WrongSize: Error { let message: String }

    let height: Int, width: Int, channels: Int
    private let resize: String, resized: [Int], interpolation: String, order: String
    private let offset: [Float], divisor: [Float]

    /// Take the description's "input". Returns nil for what is not supported, such as RGBA.
    public init?(_ input: [String: Any]) {
        guard let size = input["size"] as? [Int], let mean = input["mean"] as? [Double],
            let std = input["std"] as? [Double], let order = input["channels"] as? String,
            let interpolation = input["interpolation"] as? String, order != "RGBA",
            let scale = input["scale"] as? String,
            ["box", "bilinear", "hamming", "bicubic", "lanczos"].contains(interpolation)
        else { return nil }
        (height, width, channels) = (size[0], size[1], mean.count)
        if let side = input["resize"] as? Int {
            (resize, resized) = ("side", [side])
        } else if let both = input["resize"] as? [Int] {
            (resize, resized) = ("size", both)
        } else {
            (resize, resized) = (input["resize"] as? String ?? "none", size)
        }
        (self.interpolation, self.order) = (interpolation, order)
        let unit: Float = scale == "0..1" ? 255 : scale == "-1..1" ? 127.5 : 1
        let shift: Float = scale == "-1..1" ? 1 : 0
        offset = mean.map { (Float($0) + shift) * unit }
        divisor = std.map { Float($0) * unit }
    }

    /// Returns one photo for the network: channel by channel, row by row.
    func normalised(_ rgba: [UInt8], _ across: Int, _ down: Int) throws -> [Float] {
        if resize == "none" && (across, down) != (width, height) {
            throw WrongSize(message: "The photo has \(across) × \(down) pixels only; the model"
                + " takes \(width) × \(height). Resize it first.")
        }
        let (x0, y0, wide, high) = centre(across, down)
        let (newWidth, newHeight) = geometry(wide, high)
        let x = axis(wide, newWidth, middle(newWidth, width), width)
        let y = axis(high, newHeight, middle(newHeight, height), height)
        var batch = [Float](repeating: 0, count: channels * height * width)
        for channel in 0..<channels {
            let plane = self.plane(channel, rgba, across, (x0, y0, wide, high))
            let pixels = resample(plane, wide, x, y) // what is padded stays black
            for (at, pixel) in pixels.enumerated() {
                batch[channel * height * width + at] =
                    (Float(pixel) - offset[channel]) / divisor[channel]
            }
        }
        return batch
    }

    private func plane(
        _ channel: Int, _ rgba: [UInt8], _ across: Int, _ part: (Int, Int, Int, Int)
    ) -> [Int] {
        let which = order == "BGR" ? 2 - channel : channel
        var plane = [Int](repeating: 0, count: part.2 * part.3)
        for y in 0..<part.3 {
            for x in 0..<part.2 {
                let at = 4 * ((part.1 + y) * across + part.0 + x)
                if order == "L" {
                    let (r, g, b) = (Int(rgba[at]), Int(rgba[at + 1]), Int(rgba[at + 2]))
                    plane[y * part.2 + x] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16
                } else {
                    plane[y * part.2 + x] = Int(rgba[at + which])
                }
            }
        }
        return plane
    }

    /// Left, top, width and height of the centre, which is at most 16 times as long as wide.
    private func centre(_ across: Int, _ down: Int) -> (Int, Int, Int, Int) {
        let side = resize == "side"
        let (h, w) = side ? (height, width) : (resized[0], resized[1])
        let wide = Double(w) / Double(side ? resized[0] : h)
        let high = Double(h) / Double(side ? resized[0] : w)
        let most = { (ratio: Double, other: Int) in
            Int((Self.maxAspectRatio * max(1, ratio) * Double(other)).rounded(.up))
        }
        let (cutWidth, cutHeight) = (min(across, most(wide, down)), min(down, most(high, across)))
        return ((across - cutWidth) / 2, (down - cutHeight) / 2, cutWidth, cutHeight)
    }

    /// Width and height after resizing.
    private func geometry(_ across: Int, _ down: Int) -> (Int, Int) {
        if resize == "side" {
            let shorter = Double(min(across, down))
            return (
                Int(Double(resized[0] * across) / shorter), Int(Double(resized[0] * down) / shorter)
            )
        }
        if resize == "pad" {
            let scale = max(Double(across) / Double(width), Double(down) / Double(height))
            let fit = { (side: Int) in
                max(1, Int((Double(side) / scale).rounded(.toNearestOrEven)))
            }
            return (fit(across), fit(down))
        }
        return (resized[1], resized[0])
    }

    private func middle(_ length: Int, _ cut: Int) -> Int {
        length >= cut
            ? Int((Double(length - cut) / 2).rounded(.toNearestOrEven)) : -((cut - length) / 2)
    }

    /// For each pixel of the crop: where the pixels begin that it is made of, and their weights.
    private struct Axis {
        var begin: Int // of the pixels that are not padding
        var first: [Int] = []
        var weights: [[Int]] = []
    }

    private func axis(_ from: Int, _ to: Int, _ crop: Int, _ cut: Int) -> Axis {
        var axis = Axis(begin: max(0, -crop))
        let scale = Double(from) / Double(to), filter = max(1, scale)
        let support = self.support * filter
        for at in max(0, crop)..<min(to, crop + cut) {
            if from == to {
                axis.first.append(at)
                axis.weights.append([1 << Self.precisionBits])
                continue
            }
            let centre = (Double(at) + 0.5) * scale
            let first = max(0, Int(centre - support + 0.5))
            let end = min(from, Int(centre + support + 0.5))
            var exact = (first..<end).map { weight((Double($0) - centre + 0.5) * (1 / filter)) }
            let sum = exact.reduce(0, +)
            if sum != 0 { exact = exact.map { $0 / sum } }
            axis.first.append(first)
            axis.weights.append(exact.map {
                let one = $0 * Double(1 << Self.precisionBits)
                return Int(one < 0 ? one - 0.5 : one + 0.5)
            })
        }
        return axis
    }

    /// First along the rows, then along the columns, with whole numbers between: as Pillow does.
    private func resample(_ plane: [Int], _ across: Int, _ x: Axis, _ y: Axis) -> [Int] {
        var pixels = [Int](repeating: 0, count: height * width)
        guard let top = y.first.first, let last = y.first.last else { return pixels }
        let rows = last + y.weights[y.weights.count - 1].count - top, columns = x.first.count
        let half = 1 << (Self.precisionBits - 1)
        let clip = { (sum: Int) in max(0, min(255, sum >> Self.precisionBits)) }
        var narrow = [Int](repeating: 0, count: rows * columns)
        for row in 0..<rows {
            for (i, weights) in x.weights.enumerated() {
                var sum = half
                let at = (top + row) * across + x.first[i]
                for (k, weight) in weights.enumerated() { sum += plane[at + k] * weight }
                narrow[row * columns + i] = clip(sum)
            }
        }
        for (j, weights) in y.weights.enumerated() {
            for i in 0..<columns {
                var sum = half
                let at = (y.first[j] - top) * columns + i
                for (k, weight) in weights.enumerated() { sum += narrow[at + k * columns] * weight }
                pixels[(y.begin + j) * width + x.begin + i] = clip(sum)
            }
        }
        return pixels
    }

    private var support: Double {
        ["box": 0.5, "bicubic": 2, "lanczos": 3][interpolation] ?? 1
    }

    private func weight(_ x: Double) -> Double {
        let far = abs(x)
        switch interpolation {
        case "box": return x > -0.5 && x <= 0.5 ? 1 : 0
        case "hamming": return far >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * cos(x * .pi))
        case "bicubic": // with a = -0.5
            if far < 1 { return (1.5 * far - 2.5) * far * far + 1 }
            return far < 2 ? (((far - 5) * far + 8) * far - 4) * -0.5 : 0
        case "lanczos": return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0
        default: return max(0, 1 - far) // bilinear
        }
    }

    private func sinc(_ x: Double) -> Double {
        x == 0 ? 1 : sin(x * .pi) / (x * .pi)
    }
}
