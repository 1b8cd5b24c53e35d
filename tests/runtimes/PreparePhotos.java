import java.awt.image.BufferedImage;
import java.io.File;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import javax.imageio.ImageIO;

/** Prepares photos. Each line of the file: photo, output, size, resize, interpolation, … */
class PreparePhotos {
    public static void main(String[] arguments) throws Exception {
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            String[] words = line.split(" ");
            Prepare prepare = new Prepare(whole(words[2]), words[3], whole(words[4]), words[5],
                    numbers(words[6]), numbers(words[7]), words[8], words[9]);
            BufferedImage photo = ImageIO.read(new File(words[0]));
            int width = photo.getWidth(), height = photo.getHeight();
            int[] argb = photo.getRGB(0, 0, width, height, null, 0, width);
            int[] pixels = prepare.pixels(argb, width, height);
            float[] batch = prepare.normalised(argb, width, height);
            ByteBuffer bytes = ByteBuffer.allocate(pixels.length + 4 * batch.length);
            for (int pixel : pixels) {
                bytes.put((byte) pixel);
            }
            for (float value : batch) {
                bytes.putFloat(value);
            }
            Files.write(Path.of(words[1]), bytes.array());
        }
    }

    private static int[] whole(String text) {
        return text.equals("-") ? new int[0]
                : Arrays.stream(text.split(",")).mapToInt(Integer::parseInt).toArray();
    }

    private static float[] numbers(String text) {
        String[] parts = text.split(",");
        float[] numbers = new float[parts.length];
        for (int i = 0; i < parts.length; i++) {
            numbers[i] = Float.parseFloat(parts[i]);
        }
        return numbers;
    }
}
