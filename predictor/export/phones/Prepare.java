/**
 * An upright photo's pixels to what the network takes: the resize, crop and normalisation of the
 * exported description. Plain Java. The resize is that of Pillow, with its fixed-point arithmetic.
 *
 * <p>Android decodes a photo as the file says: turn it by its EXIF orientation first.
 */
public final class Prepare {
    static final int PRECISION_BITS = 22; // of Pillow: 32 bits, less 8 of a pixel and 2 for overshoot
    static final int MAX_ASPECT_RATIO = 16; // longer photos are cut to it before they are resized

    private final int height, width;
    private final String resize, interpolation, channels;
    private final int[] resized;
    private final float[] offset, divisor;

    /**
     * @param size height and width that the network takes
     * @param resize "side", "size", "squash", "pad" or "none"
     * @param resized for "side" one number, the shorter side; for "size" height and width
     * @param channels "RGB", "BGR" or "L"
     * @param scale "0..1", "-1..1" or "0..255"
     */
    public Prepare(int[] size, String resize, int[] resized, String interpolation, float[] mean,
            float[] std, String channels, String scale) {
        if (channels.equals("RGBA")) {
            throw new IllegalArgumentException("Photos with alpha (RGBA) are not supported.");
        }
        height = size[0];
        width = size[1];
        this.resize = resize;
        this.resized = resize.equals("size") ? resized : resize.equals("side") ? resized : size;
        this.interpolation = interpolation;
        this.channels = channels;
        float unit = scale.equals("0..1") ? 255f : scale.equals("-1..1") ? 127.5f : 1f;
        float shift = scale.equals("-1..1") ? 1f : 0f;
        offset = new float[mean.length];
        divisor = new float[mean.length];
        for (int c = 0; c < mean.length; c++) {
            offset[c] = (mean[c] + shift) * unit;
            divisor[c] = std[c] * unit;
        }
        weight(0); // refuses an unknown interpolation now
    }

    /** Returns one photo for the network: channel by channel, row by row. */
    public float[] normalised(int[] argb, int across, int down) {
        int[] pixels = pixels(argb, across, down);
        int count = offset.length, area = height * width;
        float[] batch = new float[pixels.length];
        for (int i = 0; i < area; i++) {
            for (int c = 0; c < count; c++) {
                batch[c * area + i] = (pixels[i * count + c] - offset[c]) / divisor[c];
            }
        }
        return batch;
    }

    /** Returns height × width × channels numbers from 0 to 255. {@code argb} is row by row. */
    public int[] pixels(int[] argb, int across, int down) {
        if (resize.equals("none") && (across != width || down != height)) {
            throw new IllegalArgumentException("The photo has " + across + " × " + down
                    + " pixels; the model takes " + width + " × " + height + ". Resize it first.");
        }
        int[] centre = centre(across, down);
        int[][] planes = planes(argb, across, centre);
        int[] to = geometry(centre[2], centre[3]);
        int left = middle(to[0], width), top = middle(to[1], height);
        Axis x = new Axis(centre[2], to[0], left, width), y = new Axis(centre[3], to[1], top, height);
        int[] pixels = new int[height * width * planes.length]; // what is padded stays black
        for (int c = 0; c < planes.length; c++) {
            resample(planes[c], centre[2], x, y, pixels, c, planes.length);
        }
        return pixels;
    }

    /** The channels of a part of the photo, over white where it is transparent. */
    private int[][] planes(int[] argb, int across, int[] part) {
        boolean grey = channels.equals("L");
        int[][] planes = new int[grey ? 1 : 3][part[2] * part[3]];
        for (int y = 0; y < part[3]; y++) {
            for (int x = 0; x < part[2]; x++) {
                int pixel = argb[(part[1] + y) * across + part[0] + x], to = y * part[2] + x;
                int alpha = pixel >>> 24;
                int r = over(pixel >> 16 & 255, alpha), g = over(pixel >> 8 & 255, alpha);
                int b = over(pixel & 255, alpha);
                if (grey) {
                    planes[0][to] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
                } else {
                    boolean reversed = channels.equals("BGR");
                    planes[0][to] = reversed ? b : r;
                    planes[1][to] = g;
                    planes[2][to] = reversed ? r : b;
                }
            }
        }
        return planes;
    }

    private static int over(int value, int alpha) {
        int blend = value * alpha + 255 * (255 - alpha) + 128;
        return ((blend >> 8) + blend) >> 8;
    }

    /** Left, top, width and height of the centre, which is at most 16 times as long as wide. */
    private int[] centre(int across, int down) {
        boolean side = resize.equals("side");
        double wide = side ? (double) width / resized[0] : (double) resized[1] / resized[0];
        double high = side ? (double) height / resized[0] : (double) resized[0] / resized[1];
        double most = MAX_ASPECT_RATIO * Math.max(1, wide) * down;
        int w = (int) Math.min(across, Math.ceil(most));
        most = MAX_ASPECT_RATIO * Math.max(1, high) * across;
        int h = (int) Math.min(down, Math.ceil(most));
        return new int[] {(across - w) / 2, (down - h) / 2, w, h};
    }

    /** Width and height after resizing. */
    private int[] geometry(int across, int down) {
        if (resize.equals("side")) {
            double shorter = Math.min(across, down);
            return new int[] {(int) ((long) resized[0] * across / shorter),
                    (int) ((long) resized[0] * down / shorter)};
        }
        if (resize.equals("pad")) {
            double scale = Math.max((double) across / width, (double) down / height);
            return new int[] {(int) Math.max(1, Math.rint(across / scale)),
                    (int) Math.max(1, Math.rint(down / scale))};
        }
        return new int[] {resized[1], resized[0]};
    }

    private static int middle(int length, int cut) {
        return length >= cut ? (int) Math.rint((length - cut) / 2.0) : -((cut - length) / 2);
    }

    /** For each pixel of the crop: where the pixels begin that it is made of, and their weights. */
    private final class Axis {
        final int begin; // of the pixels that are not padding
        final int[] first;
        final int[][] weights;

        Axis(int from, int to, int crop, int cut) {
            begin = Math.max(0, -crop);
            int count = Math.min(to, crop + cut) - Math.max(0, crop);
            first = new int[count];
            weights = new int[count][];
            double scale = (double) from / to, filter = Math.max(1, scale);
            double support = support() * filter;
            for (int i = 0; i < count; i++) {
                int at = i + Math.max(0, crop);
                if (from == to) {
                    first[i] = at;
                    weights[i] = new int[] {1 << PRECISION_BITS};
                    continue;
                }
                double centre = (at + 0.5) * scale;
                first[i] = Math.max(0, (int) (centre - support + 0.5));
                int end = Math.min(from, (int) (centre + support + 0.5));
                double[] exact = new double[end - first[i]];
                double sum = 0;
                for (int k = 0; k < exact.length; k++) {
                    exact[k] = weight((k + first[i] - centre + 0.5) * (1 / filter));
                    sum += exact[k];
                }
                weights[i] = new int[exact.length];
                for (int k = 0; k < exact.length; k++) {
                    double one = (sum == 0 ? exact[k] : exact[k] / sum) * (1 << PRECISION_BITS);
                    weights[i][k] = (int) (one < 0 ? one - 0.5 : one + 0.5);
                }
            }
        }
    }

    /** First along the rows, then along the columns, with whole numbers between: as Pillow does. */
    private void resample(int[] plane, int across, Axis x, Axis y, int[] pixels, int c, int count) {
        if (y.first.length == 0) {
            return;
        }
        int last = y.first.length - 1, top = y.first[0];
        int rows = y.first[last] + y.weights[last].length - top, columns = x.first.length;
        int[] narrow = new int[rows * columns];
        for (int row = 0; row < rows; row++) {
            for (int i = 0; i < columns; i++) {
                int[] weights = x.weights[i];
                int sum = 1 << (PRECISION_BITS - 1), at = (top + row) * across + x.first[i];
                for (int k = 0; k < weights.length; k++) {
                    sum += plane[at + k] * weights[k];
                }
                narrow[row * columns + i] = clip(sum);
            }
        }
        for (int j = 0; j <= last; j++) {
            int[] weights = y.weights[j];
            for (int i = 0; i < columns; i++) {
                int sum = 1 << (PRECISION_BITS - 1), at = (y.first[j] - top) * columns + i;
                for (int k = 0; k < weights.length; k++) {
                    sum += narrow[at + k * columns] * weights[k];
                }
                pixels[((y.begin + j) * width + x.begin + i) * count + c] = clip(sum);
            }
        }
    }

    private static int clip(int sum) {
        return Math.max(0, Math.min(255, sum >> PRECISION_BITS));
    }

    private double support() {
        switch (interpolation) {
            case "box": return 0.5;
            case "bicubic": return 2;
            case "lanczos": return 3;
            default: return 1;
        }
    }

    private double weight(double x) {
        double far = Math.abs(x);
        switch (interpolation) {
            case "box": return x > -0.5 && x <= 0.5 ? 1 : 0;
            case "bilinear": return Math.max(0, 1 - far);
            case "hamming":
                return far >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(x * Math.PI));
            case "bicubic": // with a = -0.5
                return far < 1 ? (1.5 * far - 2.5) * far * far + 1
                        : far < 2 ? (((far - 5) * far + 8) * far - 4) * -0.5 : 0;
            case "lanczos": return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0;
            default: throw new IllegalArgumentException("The interpolation is " + interpolation
                    + "; it must be box, bilinear, hamming, bicubic or lanczos.");
        }
    }

    private static double sinc(double x) {
        return x == 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
    }
}
